"""The records and rejects that every file reader yields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        line: Where it starts, counted from 1: the line of a text file, the row of a sheet or
            of a page's table, the line of an XML element.
        values: Field name to value. Text formats give the text as in the file; typed formats
            (JSON, XLSX) give their types.
        page: The page, counted from 1, for formats that have pages.
    """

    line: int
    values: Mapping[str, Any]
    page: int | None = None


class Reject(NamedTuple):
    """A record that was not accepted, and why.

    Attributes:
        line: As in `Record`.
        column: The field as the file names it; "" when the whole record is meant.
        reason: What is wrong, without the value, because it ends up in artifacts.
        values: The record as read, for the reject file only.
        page: As in `Record`.
    """

    line: int
    column: str
    reason: str
    values: Mapping[str, Any]
    page: int | None = None
