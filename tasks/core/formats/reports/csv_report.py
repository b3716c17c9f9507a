"""Writes CSV that spreadsheets read as data: typed, streamed, and free of formulas."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from blocks.errors import MisconfiguredError
from tasks.core.formats.reports.report import Kind, Report, Summary, summing
from tasks.core.formats.reports.rows import Rows, column_chunks

# A cell that starts with one of these may run as a formula when a spreadsheet opens the file;
# the full-width forms do so in East Asian editions.
_FORMULA_STARTS = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


class CsvReport(BaseModel):
    """How a CSV report is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["csv"] = "csv"
    delimiter: str = Field(
        default=",", min_length=1, max_length=1, description="One character; ; for much of Europe."
    )
    encoding: str = Field(
        default="utf-8-sig",
        description="utf-8-sig is what Excel recognises; also utf-8, utf-16, cp1252 and so on.",
    )
    unencodable: Literal["fail", "replace"] = Field(
        default="fail", description="What to do with characters that the encoding lacks."
    )
    decimal_comma: bool = Field(
        default=False, description="Write 12,50; the delimiter must be another character."
    )
    totals: bool = Field(default=False, description="Add a last row with totals.")

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            codecs.lookup(value)
        except LookupError as exc:
            raise ValueError(f"{value!r} is no encoding; use utf-8-sig") from exc
        return value

    @field_validator("delimiter")
    @classmethod
    def _separates(cls, value: str) -> str:
        if value in "\"'\r\n" or value.isalnum():
            raise ValueError("the delimiter is a character such as , ; | or a tab")
        return value

    @property
    def extension(self) -> str:
        """The extension of the file's name."""
        return ".csv"

    @property
    def media_type(self) -> str:
        """Source: RFC 7111."""
        return "text/csv"


def write_csv(path: Path, report: Report, rows: Rows, options: CsvReport) -> Summary:
    """Write a header and one line per row, in constant memory.

    Text that a spreadsheet might run as a formula gets a leading apostrophe; columns declared as
    numbers keep their sign. Instants are wall-clock times in the period's zone.

    Raises:
        MisconfiguredError: The encoding lacks a character and `unencodable` says fail.
        BadPayloadError: As `column_chunks`.

    Source: RFC 4180; OWASP, CSV Injection.
    """
    if options.decimal_comma and options.delimiter == ",":
        raise ValueError("with a decimal comma the delimiter cannot be a comma; use ;")
    summary = Summary()
    errors = "strict" if options.unencodable == "fail" else "replace"
    writers = [_writer(column.kind, options) for column in report.columns]
    try:
        with path.open("w", encoding=options.encoding, errors=errors, newline="") as file:
            out = csv.writer(file, delimiter=options.delimiter, lineterminator="\r\n")
            out.writerow(_neutral([column.heading for column in report.columns]))
            for chunk in summing(column_chunks(rows, report), report, summary):
                cells = [write(values) for write, values in zip(writers, chunk, strict=True)]
                out.writerows(zip(*cells, strict=True))
            if options.totals:
                out.writerow(_totals_row(report, summary, writers))
    except UnicodeEncodeError as exc:
        raise MisconfiguredError(
            f"encoding {options.encoding} lacks the character U+{ord(exc.object[exc.start]):04X}; "
            "use utf-8-sig, or let unencodable characters be replaced",
            system=f"report {report.name}",
            operation="write CSV",
        ) from exc
    return summary


Column = Callable[[Sequence[Any]], Sequence[Any]]


def _writer(kind: Kind, options: CsvReport) -> Column:
    if kind is Kind.TEXT:
        return _neutral
    if kind is Kind.INSTANT:
        return _wall_clocks
    if kind is Kind.MONEY:
        return _comma_amounts if options.decimal_comma else _amounts
    if kind is Kind.NUMBER and options.decimal_comma:
        return _comma_numbers
    return _as_they_are


def _neutral(values: Sequence[Any]) -> Sequence[Any]:
    return [f"'{value}" if value and value[0] in _FORMULA_STARTS else value for value in values]


def _as_they_are(values: Sequence[Any]) -> Sequence[Any]:
    return values


def _wall_clocks(values: Sequence[Any]) -> Sequence[Any]:
    return [None if value is None else str(value)[:19] for value in values]


def _amounts(values: Sequence[Any]) -> Sequence[Any]:
    # Not str(): Decimal("1E+3") is the amount 1000.
    return [None if value is None else format(value, "f") for value in values]


def _comma_amounts(values: Sequence[Any]) -> Sequence[Any]:
    return [None if value is None else format(value, "f").replace(".", ",") for value in values]


def _comma_numbers(values: Sequence[Any]) -> Sequence[Any]:
    return [None if value is None else repr(value).replace(".", ",") for value in values]


def _totals_row(report: Report, summary: Summary, writers: Sequence[Column]) -> list[Any]:
    cells = [
        write([summary.totals[column.name]])[0] if column.total else None
        for column, write in zip(report.columns, writers, strict=True)
    ]
    if cells[0] is None:
        cells[0] = "Total"
    return cells
