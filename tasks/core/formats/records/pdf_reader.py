"""Reads the tables of a PDF as one, across page breaks, holding one page in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import BinaryIO

import pdfplumber
from pdfminer.pdfdocument import PDFPasswordIncorrect
from pdfplumber.utils.exceptions import PdfminerException

from blocks.errors import BadPayloadError
from tasks.core.formats.records.formats import PdfFormat
from tasks.core.formats.records.record import Record, Reject
from tasks.core.formats.records.source import Source
from tasks.core.formats.records.table import Table, column_names, table_records

_Row = tuple[int, int, list[str]]


def read_pdf(file: BinaryIO, options: PdfFormat, source: Source) -> Table:
    """Read the header of the first table and prepare to read the rows of all.

    A row's line is its number among all rows of its page. Every value is text; a line break in a
    cell becomes a space.

    Args:
        file: Seekable.
        options: How tables are recognised, and how much is accepted.
        source: The file, for errors.

    Raises:
        BadPayloadError: It is encrypted, is not a PDF, has no table or too many pages.
    """
    rows = _rows(file, options, source)
    first = next(rows, None)
    if first is None:
        raise source.bad(
            "has no table; if it shows one without ruled lines set strategy to text, if it is a "
            "scanned picture it has no text to read"
        )
    line, _, header = first
    columns = column_names(header, source, line=line)

    def records(keys: Sequence[str]) -> Iterator[Record | Reject]:
        body = (row for row in rows if row[2] != header)
        if options.other_tables == "ignore":
            body = (row for row in body if len(row[2]) == len(columns))
        return table_records(body, columns, keys)

    return Table(columns, records, line)


def _rows(file: BinaryIO, options: PdfFormat, source: Source) -> Iterator[_Row]:
    strategies = {"vertical_strategy": options.strategy, "horizontal_strategy": options.strategy}
    password = options.password.get_secret_value() if options.password else None
    try:
        with pdfplumber.open(file, password=password) as pdf:
            _refuse_more_pages(len(pdf.pages), options, source)
            for page in pdf.pages:
                tables = page.extract_tables(strategies)
                page.close()
                for line, row in enumerate(chain.from_iterable(tables), 1):
                    yield line, page.page_number, [" ".join((cell or "").split()) for cell in row]
    except BadPayloadError:
        raise
    except Exception as exc:  # the library raises errors of any type for a damaged file
        raise _unreadable(exc, options, source) from exc


def _refuse_more_pages(pages: int, options: PdfFormat, source: Source) -> None:
    if pages > options.max_pages:
        raise source.bad(
            f"has {pages:,} pages and the limit is {options.max_pages:,}; have the sender split "
            "it, or raise max_pages"
        )


def _unreadable(exc: Exception, options: PdfFormat, source: Source) -> BadPayloadError:
    cause = exc.args[0] if isinstance(exc, PdfminerException) and exc.args else exc
    if isinstance(cause, PDFPasswordIncorrect):
        return source.bad(
            "is encrypted and the password given does not open it; ask the sender for the new one"
            if options.password
            else "is encrypted; set password, or have the sender write it without encryption"
        )
    return source.bad(
        f"cannot be read as a PDF ({type(cause).__name__}); it may be damaged or cut off: have the "
        "sender write it again"
    )
