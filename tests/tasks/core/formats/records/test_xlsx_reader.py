"""Excel workbooks as partners send them, good, bad and hostile."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable
from datetime import date, datetime

import pytest
import xlsxwriter
from hypothesis import given
from hypothesis import strategies as st
from msoffcrypto.format.ooxml import OOXMLFile
from xlsxwriter.worksheet import Worksheet

from blocks.errors import BadPayloadError
from tasks.core.formats.records.formats import XlsxFormat
from tasks.core.formats.records.record import Record, Reject


def workbook(*fills: Callable[[Worksheet], object], **options: object) -> bytes:
    """A workbook with a sheet for each function that fills one, named after it."""
    file = io.BytesIO()
    with xlsxwriter.Workbook(file, {"default_date_format": "yyyy-mm-dd hh:mm", **options}) as book:
        for fill in fills:
            fill(book.add_worksheet(fill.__name__))
    return file.getvalue()


def stock(sheet: Worksheet) -> None:
    sheet.write_row(0, 0, ["SKU", "Quantity", "Price", "Counted at", "Active", 2026])
    sheet.write_row(1, 0, ["007", 5, 1.5])
    sheet.write_datetime(1, 3, datetime.fromisoformat("2026-11-02T14:30"))
    sheet.write_boolean(1, 4, True)
    sheet.write_row(3, 0, ["x", -3, 2, "", "", 1e15])


def rows_below(sheet: Worksheet) -> None:
    sheet.write(1, 1, "Report of today")
    sheet.write_row(3, 1, ["sku", "name"])
    sheet.write_row(4, 1, ["1", "x"])
    sheet.write_row(6, 1, ["2", "y", "z"])


def test_cells_keep_their_types(read):
    """Text stays text, whole numbers are int, dates and booleans are such, blank rows are none."""
    first, second = read(workbook(stock), XlsxFormat())

    assert first == Record(
        2,
        {
            "SKU": "007",
            "Quantity": 5,
            "Price": 1.5,
            "Counted at": datetime.fromisoformat("2026-11-02T14:30"),
            "Active": True,
            "2026": "",
        },
    )
    assert second.line == 4
    assert [(type(v), v) for v in second.values.values()] == [
        (str, "x"),
        (int, -3),
        (int, 2),
        (str, ""),
        (str, ""),
        (int, 10**15),
    ]


@pytest.mark.parametrize("epoch_1904", [False, True])
def test_dates_are_right_in_both_calendars(read, epoch_1904):
    """Dates and times are the same whether a workbook counts from 1900 or 1904."""

    def dates(sheet: Worksheet) -> None:
        sheet.write_row(0, 0, ["a", "b"])
        sheet.write_datetime(1, 0, date(2026, 2, 28))
        sheet.write_datetime(1, 1, datetime.fromisoformat("2026-02-28T23:59:58"))

    (record,) = read(workbook(dates, date_1904=epoch_1904), XlsxFormat())

    assert list(record.values.values()) == [
        date(2026, 2, 28),
        datetime.fromisoformat("2026-02-28T23:59:58"),
    ]


def test_the_header_may_stand_anywhere(read):
    """With header_row the rows above are skipped, rows keep their numbers, and the widths count."""
    assert read(workbook(rows_below), XlsxFormat(header_row=4)) == [
        Record(5, {"sku": "1", "name": "x"}),
        Reject(
            7,
            "",
            "has 3 cells where the header has 2",
            {"sku": "2", "name": "y", "column 3": "z"},
        ),
    ]


@pytest.mark.parametrize("sheet", ["rows_below", 2])
def test_the_sheet_is_found_by_name_or_number(read, sheet):
    """A sheet is named as in Excel or counted from 1."""
    records = read(workbook(stock, rows_below), XlsxFormat(sheet=sheet, header_row=4))

    assert records[0].values == {"sku": "1", "name": "x"}


def test_a_workbook_with_a_password_is_refused(refusal):
    """A protected workbook says so instead of looking damaged."""
    protected = io.BytesIO()
    OOXMLFile(io.BytesIO(workbook(stock))).encrypt("secret", protected)

    assert refusal(protected.getvalue(), XlsxFormat()) == (
        "is protected by a password; have the sender save it without one (in Excel: File, Info, "
        "Protect Workbook, Encrypt with Password, leave empty)"
    )


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, "the file is empty (0 bytes); have the sender write it again"),
        (
            b"sku;name\n",
            {},
            "is no .xlsx workbook; check which kind of file the sender writes",
        ),
        (
            bytes.fromhex("d0cf11e0a1b11ae1") + bytes(2000),
            {},
            "is an old .xls workbook; have the sender save it as .xlsx",
        ),
        (
            workbook(stock, rows_below),
            {"sheet": "Stock"},
            "has no sheet 'Stock', but 'stock', 'rows_below'; set sheet to one of them",
        ),
        (
            workbook(stock),
            {"sheet": 2},
            "has no sheet 2, but 'stock'; set sheet to one of them",
        ),
        (
            workbook(rows_below),
            {},
            (
                "has no header: row 1 of sheet 'rows_below' is empty; set sheet and header_row to "
                "where the column names are"
            ),
        ),
        (
            workbook(stock),
            {"max_bytes": 5000},
            "is larger than 5,000 bytes; have the sender split it, or raise max_bytes",
        ),
        (
            workbook(stock),
            {"max_cells": 20},
            (
                "spans 4 rows and 6 columns in xl/worksheets/sheet1.xml and the limit is 20 cells; "
                "delete stray cells beyond the data (Ctrl+End shows the last one), or raise "
                "max_cells"
            ),
        ),
    ],
)
def test_workbooks_that_cannot_be_read(refusal, content, options, message):
    """What is no workbook, or not the one the options describe, says what to do."""
    assert refusal(content, XlsxFormat(**options)) == message


def test_a_workbook_that_was_cut_off_is_refused(refusal):
    """A workbook that did not arrive whole says so."""
    assert refusal(workbook(stock)[:3000], XlsxFormat()) == (
        "cannot be read as an .xlsx workbook (File is not a zip file); it may be damaged or cut "
        "off: open it in Excel and save it again"
    )


def test_unpacked_parts_count(refusal):
    """A workbook that is small only because it is packed is refused before it is unpacked."""
    bomb = io.BytesIO(workbook(stock))
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/media/bomb.bin", bytes(3_000_000))

    assert refusal(bomb.getvalue(), XlsxFormat(max_bytes=2_000_000)).startswith("unpacks to 3,0")


ROWS = '<row r="1"><c r="A1"><v>1</v></c></row>'


@pytest.mark.parametrize(
    ("rows", "spans"),
    [
        (
            '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>',
            "1,048,576 rows and 16,384 columns",
        ),
        ("<row><c r = 'xfd1048576'><v>1</v></c></row>", "1,048,576 rows and 16,384 columns"),
        ('<x:row a=">" r="9000000"><c><v>1</v></c></x:row>', "9,000,000 rows and 1 columns"),
        (
            "<row>" + "<c><v>1</v></c>" * 3000 + '</row><row r="2000"/>',
            "2,000 rows and 3,000 columns",
        ),
        ('<row r="99999999999"><c t="n"/></row>', "99,999,999,999 rows and 1 columns"),
    ],
)
def test_two_cells_far_apart_are_refused(refusal, rows, spans):
    """A sheet whose rectangle is vast is refused, however its cells tell their places.

    Laid out in memory the first of these would take 550 GB, and the library would end the
    process.
    """
    sheet = f'<worksheet xmlns:x="urn:x"><sheetData>{ROWS}{rows}</sheetData></worksheet>'
    hostile = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(workbook(stock))) as good,
        zipfile.ZipFile(hostile, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for part in good.infolist():
            is_sheet = part.filename == "xl/worksheets/sheet1.xml"
            archive.writestr(part.filename, sheet if is_sheet else good.read(part))

    assert refusal(hostile.getvalue(), XlsxFormat()).startswith(f"spans {spans} in ")


GOOD = workbook(stock)


@given(
    changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=5),
    end=st.integers(0, len(GOOD)) | st.just(len(GOOD)),
)
def test_any_damage_is_read_or_refused(opened, changes, end):
    """Whatever happened to a workbook, reading it ends in records or in a BadPayloadError."""
    content = bytearray(GOOD)
    for place, value in changes:
        content[place] = value
    try:
        for record in opened(bytes(content[:end]), XlsxFormat()):
            assert record.line >= 1
    except BadPayloadError:
        pass


SHEET = zipfile.ZipFile(io.BytesIO(GOOD)).read("xl/worksheets/sheet1.xml")


@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(SHEET) - 1), st.sampled_from(list(b'<>/"=rcstv019A '))),
        max_size=4,
    )
)
def test_any_sheet_is_read_or_refused(opened, changes):
    """Whatever the XML of a sheet says, reading it ends in records or in a BadPayloadError."""
    sheet = bytearray(SHEET)
    for place, value in changes:
        sheet[place] = value
    changed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(GOOD)) as good,
        zipfile.ZipFile(changed, "w", zipfile.ZIP_STORED) as archive,
    ):
        for part in good.infolist():
            is_sheet = part.filename == "xl/worksheets/sheet1.xml"
            archive.writestr(part.filename, bytes(sheet) if is_sheet else good.read(part))
    with contextlib.suppress(BadPayloadError):
        list(opened(changed.getvalue(), XlsxFormat()))
