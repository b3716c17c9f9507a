"""An opened file: its columns, if it has any, and its records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.formats.records.record import Record, Reject
from tasks.core.formats.records.source import Source


@dataclass(frozen=True, slots=True)
class Table:
    """An opened file whose header, if any, is read, but whose records are not.

    Attributes:
        columns: The columns as named in the header; None for formats without a header, whose
            records each have their own names.
        records: Reads the records, once. Takes one key for each column, under which the records
            hold their values; formats without columns ignore the keys.
        header_line: The line or row of the header, if there is one.
    """

    columns: tuple[str, ...] | None
    records: Callable[[Sequence[str]], Iterator[Record | Reject]]
    header_line: int | None = None


def column_names(cells: Sequence[Any], source: Source, *, line: int) -> tuple[str, ...]:
    """Return the columns of a header; a column without a name is called "column 3" and so on.

    Raises:
        BadPayloadError: Two columns have the same name, letter case and spaces aside.
    """
    names = tuple(
        " ".join(str(cell).split()) or f"column {place}" for place, cell in enumerate(cells, 1)
    )
    places: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        first = places.setdefault(name.casefold(), place)
        if first != place:
            raise source.bad(
                f"the header names {name!r} twice, as column {first} and as column {place}; "
                "have the sender name each column once",
                line=line,
            )
    return names


def table_records(
    rows: Iterable[tuple[int, int | None, Sequence[Any]]],
    columns: Sequence[str],
    keys: Sequence[str],
) -> Iterator[Record | Reject]:
    """Turn rows of (line, page, cells) into records; empty rows are left out.

    Empty cells beyond the last column are ignored: sheets and pages have them.
    """
    width = len(columns)
    for line, page, cells in rows:
        row = _trimmed(cells, width)
        if len(row) == width:
            if any(cell != "" for cell in row):
                yield Record(line, dict(zip(keys, row, strict=True)), page)
        else:
            yield width_reject(line, columns, row, page)


def width_reject(
    line: int, columns: Sequence[str], cells: Sequence[Any], page: int | None = None
) -> Reject:
    """Return the reject for a row with the wrong number of cells."""
    names = [*columns, *(f"column {place}" for place in range(len(columns) + 1, len(cells) + 1))]
    return Reject(
        line,
        "",
        f"has {len(cells)} cells where the header has {len(columns)}",
        dict(zip(names, cells, strict=False)),
        page,
    )


def _trimmed(cells: Sequence[Any], width: int) -> Sequence[Any]:
    end = len(cells)
    while end > width and cells[end - 1] == "":
        end -= 1
    return cells[:end]
