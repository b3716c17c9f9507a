"""What every file reader yields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        line: Where it starts, counted from 1: the line of a text file, the row of a sheet or
            of a page's table, the line of an XML element.
        values: Field name to value. Text formats give text as it stood in the file; formats
            with types of their own (JSON, XLSX) give those.
        page: The page, counted from 1, of formats that have pages.
    """

    line: int
    values: Mapping[str, Any]
    page: int | None = None


class Reject(NamedTuple):
    """Why one record was not taken.

    Attributes:
        line: As in `Record`.
        column: The field as the file names it; "" when the whole record is meant.
        reason: What is wrong, without the value: it ends in artifacts.
        values: The record as read, for the reject file only.
        page: As in `Record`.
    """

    line: int
    column: str
    reason: str
    values: Mapping[str, Any]
    page: int | None = None
