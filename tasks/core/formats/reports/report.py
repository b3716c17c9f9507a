"""What a report is, whatever file it becomes: its columns, its period, what it adds up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from math import fsum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.core.formats.reports.period import Period

Number = int | float | Decimal
Chunk = Sequence[Sequence[Any]]  # one sequence of values a column, all of one length
_MAX_BARS = 12


class Kind(StrEnum):
    """What a column holds, which decides how each format writes it."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    MONEY = "money"
    DATE = "date"
    INSTANT = "instant"
    YES_NO = "yes_no"

    @property
    def is_numeric(self) -> bool:
        """Whether values add up."""
        return self in {Kind.INTEGER, Kind.NUMBER, Kind.MONEY}


class ReportColumn(BaseModel):
    """One column of a report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="Field of the rows, and the name in XML and JSON.")
    title: str = Field(default="", description="Heading; empty for the name.")
    kind: Kind = Field(default=Kind.TEXT, description="What it holds.")
    total: bool = Field(default=False, description="Whether it is added up.")
    decimals: int = Field(
        default=2, ge=0, le=10, description="Decimal places shown in XLSX and PDF."
    )
    width: int | None = Field(
        default=None, ge=1, le=255, description="Characters wide in XLSX and PDF; empty to fit."
    )

    @property
    def heading(self) -> str:
        """What stands above the column."""
        return self.title or self.name

    @model_validator(mode="after")
    def _only_numbers_add_up(self) -> Self:
        if self.total and not self.kind.is_numeric:
            raise ValueError(f"column {self.name!r} holds {self.kind}: only numbers have a total")
        return self


class Chart(BaseModel):
    """A bar chart: one bar a label, as long as its values add up to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str = Field(description="Column whose values name the bars; it should have few.")
    value: str = Field(description="Numeric column that is added up.")


@dataclass(frozen=True, slots=True)
class Report:
    """What all formats need to know.

    Attributes:
        name: Short and stable: names files and delivery records.
        title: What a reader sees.
        period: What it covers; instants are shown in its zone.
        columns: In their order.
        chart: For XLSX and PDF.
    """

    name: str
    title: str
    period: Period
    columns: tuple[ReportColumn, ...]
    chart: Chart | None = None

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if not names or len(set(names)) < len(names):
            raise ValueError("a report has at least one column, and each has its own name")
        if self.chart:
            kinds = {column.name: column.kind for column in self.columns}
            if self.chart.label not in kinds or self.chart.value not in kinds:
                raise ValueError("the chart's label and value are names of columns")
            if not kinds[self.chart.value].is_numeric:
                raise ValueError(f"the chart adds up {self.chart.value!r}, which is no number")

    def position(self, name: str) -> int:
        """Where a column stands, from 0."""
        return next(i for i, column in enumerate(self.columns) if column.name == name)


@dataclass(slots=True)
class Summary:
    """What the rows add up to, known once all were written.

    Attributes:
        rows: How many.
        totals: Column name to sum, exact for integers and money.
        bars: Label and sum, greatest first; the smallest together as "Other".
    """

    rows: int = 0
    totals: dict[str, Number] = field(default_factory=dict)
    bars: list[tuple[str, Number]] = field(default_factory=list)


def summing(chunks: Iterable[Chunk], report: Report, summary: Summary) -> Iterator[Chunk]:
    """Pass the chunks on while `summary` takes in what they add up to."""
    totals = {i: column for i, column in enumerate(report.columns) if column.total}
    for column in totals.values():
        summary.totals[column.name] = Decimal(0) if column.kind is Kind.MONEY else 0
    bars: Counter[str] = Counter()
    at = report.chart and (report.position(report.chart.label), report.position(report.chart.value))
    for chunk in chunks:
        summary.rows += len(chunk[0])
        for i, column in totals.items():
            summary.totals[column.name] = _added(summary.totals[column.name], chunk[i], column.kind)
        if at:
            for label, value in zip(chunk[at[0]], chunk[at[1]], strict=True):
                if value is not None:
                    bars["" if label is None else str(label)] += value
        yield chunk
    summary.bars = _greatest(bars)


def _added(total: Number, values: Sequence[Any], kind: Kind) -> Number:
    present = [value for value in values if value is not None]
    if kind is Kind.NUMBER:
        return fsum([total, *present])
    return sum(present, start=Decimal(total) if kind is Kind.MONEY else int(total))


def _greatest(bars: Counter[str]) -> list[tuple[str, Number]]:
    ranked: list[tuple[str, Number]] = sorted(bars.items(), key=lambda bar: (-bar[1], bar[0]))
    if len(ranked) <= _MAX_BARS:
        return ranked
    rest = ranked[_MAX_BARS - 1 :]
    return [*ranked[: _MAX_BARS - 1], ("Other", sum(value for _, value in rest))]
