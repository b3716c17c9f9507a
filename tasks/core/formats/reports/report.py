"""A report, independent of its format: its columns, its period and its totals."""

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
Chunk = Sequence[Sequence[Any]]  # one sequence of values per column, all of the same length
_MAX_BARS = 12


class Kind(StrEnum):
    """The kind of a column's values, which decides how each format writes them."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    MONEY = "money"
    DATE = "date"
    INSTANT = "instant"
    YES_NO = "yes_no"

    @property
    def is_numeric(self) -> bool:
        """Whether the values can be summed."""
        return self in {Kind.INTEGER, Kind.NUMBER, Kind.MONEY}


class ReportColumn(BaseModel):
    """One column of a report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="Field of the rows, and the name in XML and JSON.")
    title: str = Field(default="", description="Heading; empty for the name.")
    kind: Kind = Field(default=Kind.TEXT, description="Kind of its values.")
    total: bool = Field(default=False, description="Whether to show its total.")
    decimals: int = Field(
        default=2, ge=0, le=10, description="Decimal places shown in XLSX and PDF."
    )
    width: int | None = Field(
        default=None, ge=1, le=255, description="Characters wide in XLSX and PDF; empty to fit."
    )

    @property
    def heading(self) -> str:
        """The column's heading."""
        return self.title or self.name

    @model_validator(mode="after")
    def _only_numbers_add_up(self) -> Self:
        if self.total and not self.kind.is_numeric:
            raise ValueError(f"column {self.name!r} holds {self.kind}: only numbers have a total")
        return self


class Chart(BaseModel):
    """A bar chart: one bar per label, showing the sum of its values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str = Field(description="Column whose values name the bars; it should have few.")
    value: str = Field(description="Numeric column to sum.")


@dataclass(frozen=True, slots=True)
class Report:
    """What all formats need to know about a report.

    Attributes:
        name: Short and stable; used for files and delivery records.
        title: Shown to readers.
        period: The time it covers; instants are shown in its zone.
        columns: In order.
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
        """Return a column's position, from 0."""
        return next(i for i, column in enumerate(self.columns) if column.name == name)


@dataclass(slots=True)
class Summary:
    """The totals of the rows, complete once all are written.

    Attributes:
        rows: Number of rows.
        totals: Column name to sum, exact for integers and money.
        bars: Label and sum, greatest first; the smallest are combined as "Other".
    """

    rows: int = 0
    totals: dict[str, Number] = field(default_factory=dict)
    bars: list[tuple[str, Number]] = field(default_factory=list)


def summing(chunks: Iterable[Chunk], report: Report, summary: Summary) -> Iterator[Chunk]:
    """Pass the chunks on while adding them to `summary`."""
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
