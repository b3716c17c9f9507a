"""Reads a sheet of an Excel workbook into memory, after checking its size."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook

from tasks.core.formats.records.budget import CHUNK_BYTES, ByteStream
from tasks.core.formats.records.compression import UNZIP_ERRORS
from tasks.core.formats.records.formats import XlsxFormat
from tasks.core.formats.records.source import Source
from tasks.core.formats.records.table import Table, column_names, table_records

_OLE_MAGIC = bytes.fromhex("d0cf11e0a1b11ae1")
_ENCRYPTED_MARK = "EncryptedPackage".encode("utf-16-le")
_ZIP_MAGIC = b"PK"
# The tag of a row or cell and, if it has one, the letters and digits of its reference.
_ROW_OR_CELL = re.compile(
    rb"""<(?:[\w.-]+:)?(row|c)"""
    rb"""(?:\s(?:[^<>"']|"[^"<]*"|'[^'<]*')*?\br\s*=\s*["']([A-Za-z]*)([0-9]+)["']|[\s/>])"""
)
_MAX_EXACT_FLOAT = 2**53


def read_xlsx(file: BinaryIO, options: XlsxFormat, source: Source) -> Table:
    """Read the header of a sheet and prepare to read its rows; a row's line is its number.

    Args:
        file: Seekable.
        options: Which sheet, and how much of it is accepted.
        source: The file, for errors.

    Raises:
        BadPayloadError: It is protected by a password, is not a workbook, has no such sheet or
            header, or is too large.

    Source: ECMA-376
    """
    _refuse_others(file, source)
    try:
        _measure(file, options, source)
        file.seek(0)
        workbook = CalamineWorkbook.from_filelike(file)
        sheet = _sheet(workbook, options.sheet, source)
    except (CalamineError, *UNZIP_ERRORS) as exc:
        raise source.bad(
            f"cannot be read as an .xlsx workbook ({exc}); it may be damaged or cut off: open it "
            "in Excel and save it again"
        ) from exc
    rows = ((line, None, _typed(cells)) for line, cells in enumerate(sheet.iter_rows(), 1))
    line, _, header = next(islice(rows, options.header_row - 1, None), (0, None, []))
    while header and header[-1] == "":
        header.pop()
    if not header:
        raise source.bad(
            f"has no header: row {options.header_row} of sheet {sheet.name!r} is empty; set sheet "
            "and header_row to where the column names are"
        )
    columns = column_names(header, source, line=line)
    return Table(columns, lambda keys: table_records(rows, columns, keys), line)


def _refuse_others(file: BinaryIO, source: Source) -> None:
    magic = file.read(len(_OLE_MAGIC))
    if magic == _OLE_MAGIC:
        if any(_ENCRYPTED_MARK in pair for pair in _overlapping_chunks(file)):
            raise source.bad(
                "is protected by a password; have the sender save it without one (in Excel: "
                "File, Info, Protect Workbook, Encrypt with Password, leave empty)"
            )
        raise source.bad("is an old .xls workbook; have the sender save it as .xlsx")
    if not magic.startswith(_ZIP_MAGIC):
        raise source.bad("is no .xlsx workbook; check which kind of file the sender writes")


def _overlapping_chunks(file: BinaryIO) -> Iterator[bytes]:
    before = b""
    while chunk := file.read(CHUNK_BYTES):
        yield before + chunk
        before = chunk[-len(_ENCRYPTED_MARK) :]


def _measure(file: BinaryIO, options: XlsxFormat, source: Source) -> None:
    """Refuse a workbook that would exhaust the memory.

    The library unpacks every part to its declared size and allocates a sheet as one rectangle, so
    two cells in far corners take hundreds of gigabytes and kill the process.
    """
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        unpacked = sum(part.file_size for part in parts)
        if unpacked > options.max_bytes:
            raise source.bad(
                f"unpacks to {unpacked:,} bytes and the limit is {options.max_bytes:,}; have the "
                "sender split it, or raise max_bytes"
            )
        for part in parts:
            with archive.open(part) as stream:
                rows, columns = _extent(stream)
            if rows * columns > options.max_cells:
                raise source.bad(
                    f"spans {rows:,} rows and {columns:,} columns in {part.filename} and the "
                    f"limit is {options.max_cells:,} cells; delete stray cells beyond the data "
                    "(Ctrl+End shows the last one), or raise max_cells"
                )


def _extent(stream: ByteStream) -> tuple[int, int]:
    """Return the rows and columns that a sheet's cells span; other parts have none."""
    column_numbers = {b"": 0}
    rows = columns = row = column = 0
    rest = b""
    while chunk := stream.read(4 * CHUNK_BYTES):
        text = rest + chunk
        cut = text.rfind(b"<")
        rest = text[cut:] if cut >= 0 and b">" not in text[cut:] else b""
        for tag, letters, digits in _ROW_OR_CELL.findall(text, 0, len(text) - len(rest)):
            if tag == b"row":
                row = int(digits) if digits else row + 1
                column = 0
            elif digits:
                row = int(digits)
                if letters not in column_numbers:
                    column_numbers[letters] = _column_number(letters)
                column = column_numbers[letters]
            else:
                column += 1
            rows = max(rows, row)
            columns = max(columns, column)
    return rows, columns


def _column_number(letters: bytes) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - ord("A") + 1
    return number


def _sheet(workbook: CalamineWorkbook, wanted: str | int, source: Source) -> CalamineSheet:
    names = workbook.sheet_names
    if isinstance(wanted, int) and 1 <= wanted <= len(names):
        return workbook.get_sheet_by_index(wanted - 1)
    if wanted in names:
        return workbook.get_sheet_by_name(str(wanted))
    raise source.bad(
        f"has no sheet {wanted!r}, but {', '.join(map(repr, names))}; set sheet to one of them"
    )


def _typed(cells: list[Any]) -> list[Any]:
    """Return whole numbers as int; the library returns every number as a float."""
    return [
        int(cell)
        if type(cell) is float and cell.is_integer() and abs(cell) <= _MAX_EXACT_FLOAT
        else cell
        for cell in cells
    ]
