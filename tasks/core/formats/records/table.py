"""What a reader makes of an opened file: its columns, if it has such, and its records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.formats.records.record import Record, Reject
from tasks.core.formats.records.source import Source


@dataclass(frozen=True, slots=True)
class Table:
    """An opened file whose header, if it has one, was read, and whose records were not.

    Attributes:
        columns: The columns as the header names them; None for formats without a header, whose
            records each bring their own names.
        records: Reads the records, once. Called with one key for each column, under which the
            values of the records then stand; formats without columns ignore them.
        header_line: The line or row the columns were read from, if they were.
    """

    columns: tuple[str, ...] | None
    records: Callable[[Sequence[str]], Iterator[Record | Reject]]
    header_line: int | None = None


def column_names(cells: Sequence[Any], source: Source, *, line: int) -> tuple[str, ...]:
    """The columns a header names; one without a name is called by its place, "column 3".

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
    """Make records of rows of (line, page, cells); rows without any content are left out.

    Empty cells beyond the last column are no fault, as sheets and pages have them.
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
    """The reject of a row that has not one cell for each column."""
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
