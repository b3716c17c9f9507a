"""Writes JSON Lines: one object per row, exact amounts, instants with their offset."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict

from tasks.core.formats.reports.report import Kind, Report, Summary, summing
from tasks.core.formats.reports.rows import Rows, column_chunks


class JsonLinesReport(BaseModel):
    """The JSON Lines format, which has no options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["json_lines"] = "json_lines"

    @property
    def extension(self) -> str:
        """The extension of the file's name."""
        return ".jsonl"

    @property
    def media_type(self) -> str:
        """The media type that jsonlines.org proposes; none is registered."""
        return "application/jsonl"


def write_json_lines(path: Path, report: Report, rows: Rows) -> Summary:
    """Write one object per row in UTF-8, in constant memory.

    Money is a string, as readers take JSON numbers for floats, and so are integers of over 64
    bits; instants carry their offset.

    Raises:
        BadPayloadError: As `column_chunks`.
    """
    summary = Summary()
    names = [column.name for column in report.columns]
    kinds = [column.kind for column in report.columns]
    with path.open("wb") as file:
        for chunk in summing(column_chunks(rows, report), report, summary):
            file.writelines(
                orjson.dumps(
                    dict(zip(names, values, strict=True)),
                    default=_other,
                    option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATETIME,
                )
                for values in zip(*map(_held, chunk, kinds), strict=True)
            )
    return summary


def _held(values: Sequence[Any], kind: Kind) -> Sequence[Any]:
    if kind is not Kind.INTEGER:
        return values
    return [value if value is None or abs(value) < 2**63 else str(value) for value in values]


def _other(value: Any) -> Any:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise TypeError(type(value).__name__)
