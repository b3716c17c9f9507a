"""Reads CSV of any size in constant memory: each record's unchanged text with its first line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Protocol

from tasks.core.formats.records.budget import CHUNK_BYTES, ByteStream, RecordBudget
from tasks.core.formats.records.formats import AUTO, CsvFormat
from tasks.core.formats.records.record import Record, Reject
from tasks.core.formats.records.source import Source
from tasks.core.formats.records.table import Table, column_names, width_reject
from tasks.core.formats.records.text import decoded_lines

_DELIMITERS = (",", ";", "\t", "|")
# What the csv module says if the file ends inside quotes.
_ENDED_INSIDE_QUOTES = "unexpected end of data"


class _Rows(Iterator[list[str]], Protocol):
    """What `csv.reader` returns; the type has no public name."""

    line_num: int


def read_csv(stream: ByteStream, options: CsvFormat, source: Source) -> Table:
    """Read the header and prepare to read the records.

    Empty lines are skipped. A line with too many or too few cells, or with text after a closing
    quote, becomes a `Reject`.

    Args:
        stream: The file's bytes.
        options: How to read the text.
        source: The file, for errors.

    Raises:
        BadPayloadError: The file is empty, is not text in the encoding, or its header is missing
            or ambiguous; while reading also: a record is too large, a quote is never closed.

    Source: RFC 4180, with any delimiter, quote and line end.
    """
    budget = RecordBudget(
        stream,
        options.max_record_bytes,
        source,
        likely_cause="a missing line break or closing quote",
    )
    skipped = max(options.header_row - 1, 0)
    lines: Iterator[str] = islice(
        chain.from_iterable(decoded_lines(budget, options.encoding, source)), skipped, None
    )
    if options.delimiter == AUTO:
        delimiter, seen = _found_delimiter(lines, options, source)
        lines = chain(seen, lines)
    else:
        delimiter = options.delimiter
    reader = _csv_reader(lines, options, delimiter)
    if options.header_row == 0:
        columns = column_names(options.columns, source, line=1)
        header_line = None
    else:
        columns, header_line = _header(reader, skipped, source)
    return Table(
        columns,
        lambda keys: _records(reader, columns, keys, skipped, budget, source),
        header_line,
    )


def _records(
    reader: _Rows,
    columns: tuple[str, ...],
    keys: Sequence[str],
    skipped: int,
    budget: RecordBudget,
    source: Source,
) -> Iterator[Record | Reject]:
    # Most time is spent in this loop and the validator's: each call saved gains 2 %.
    width = len(columns)
    begin_record = budget.begin_record
    new_tuple = tuple.__new__
    following = skipped + 1
    line = reader.line_num + following
    begin_record(line)
    while True:
        try:
            for row in reader:
                if len(row) == width and (row[0] or any(row)):
                    values = dict(zip(keys, row))  # noqa: B905  # of one length, as just seen
                    yield new_tuple(Record, (line, values, None))
                elif any(map(str.strip, row)):
                    yield width_reject(line, columns, row)
                line = reader.line_num + following
                begin_record(line)
        except csv.Error as exc:
            if str(exc) == _ENDED_INSIDE_QUOTES:
                raise source.bad(
                    "a quote in the record that begins here is never closed, so the rest of the "
                    "file cannot be read; have the sender close or double it, or set quote_char "
                    "to none if quotes have no meaning",
                    line=line,
                ) from exc
            yield Reject(
                line, "", f"is not well quoted ({exc}); a quote inside quotes is doubled", {}
            )
            line = reader.line_num + following
            begin_record(line)
        else:
            return


def _csv_reader(lines: Iterable[str], options: CsvFormat, delimiter: str) -> _Rows:
    # The limit applies to the whole process, so it is only raised; the budget does the limiting.
    csv.field_size_limit(max(csv.field_size_limit(), options.max_record_bytes + 2 * CHUNK_BYTES))
    return csv.reader(
        lines,
        delimiter=delimiter,
        quotechar=options.quote_char,
        escapechar=options.escape_char,
        quoting=csv.QUOTE_MINIMAL if options.quote_char else csv.QUOTE_NONE,
        strict=True,
    )


def _header(reader: _Rows, skipped: int, source: Source) -> tuple[tuple[str, ...], int]:
    line = skipped + 1
    try:
        for row in reader:
            if any(map(str.strip, row)):
                return column_names(row, source, line=line), line
            line = reader.line_num + skipped + 1
    except csv.Error as exc:
        raise source.bad(
            f"the header is not well quoted ({exc}); check quote_char and header_row", line=line
        ) from exc
    raise source.bad(
        f"has no header: nothing is written from line {skipped + 1} on; set header_row to the "
        "line that holds the column names"
    )


def _found_delimiter(
    lines: Iterator[str], options: CsvFormat, source: Source
) -> tuple[str, list[str]]:
    """Return the delimiter that splits the header into the most cells, and the lines read."""
    seen: list[str] = []

    def replayed() -> Iterator[str]:
        yield from tuple(seen)
        for line in lines:
            seen.append(line)
            yield line

    widths = {
        delimiter: _first_width(_csv_reader(replayed(), options, delimiter))
        for delimiter in _DELIMITERS
        if delimiter not in (options.quote_char, options.escape_char)
    }
    widest = max(widths.values())
    candidates = [delimiter for delimiter, width in widths.items() if width == widest]
    if widest > 1 and len(candidates) > 1:
        raise source.bad(
            f"the header can be cut into {widest} columns at {candidates[0]!r} and at "
            f"{candidates[1]!r}; set delimiter to the right one",
            line=options.header_row or 1,
        )
    return candidates[0], seen


def _first_width(reader: _Rows) -> int:
    try:
        return next((len(row) for row in reader if any(map(str.strip, row))), 1)
    except csv.Error:
        return 1
