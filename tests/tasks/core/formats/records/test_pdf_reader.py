"""Tables in PDFs as partners send them, good and bad."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from pypdf import PdfWriter
from reportlab.lib.colors import black
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from blocks.errors import BadPayloadError
from tasks.core.formats.records.formats import PdfFormat
from tasks.core.formats.records.record import Record, Reject

HEAD = ["SKU", "Name", "Qty"]
GRID = TableStyle([("GRID", (0, 0), (-1, -1), 0.5, black)])
TEXT = getSampleStyleSheet()["BodyText"]


def pdf(*tables: list[list[str]], grid: TableStyle | None = GRID) -> bytes:
    """A PDF with these tables below each other, each head repeated on every page."""
    file = io.BytesIO()
    parts = [Paragraph("Stock of today", TEXT)]
    for table in tables:
        parts += [Table(table, repeatRows=1, style=grid), Spacer(1, 20)]
    SimpleDocTemplate(file).build(parts)
    return file.getvalue()


def encrypted(content: bytes) -> bytes:
    writer = PdfWriter(clone_from=io.BytesIO(content))
    writer.encrypt("secret", algorithm="AES-256")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


LONG = [
    HEAD,
    *(
        [f"{row:03d}", "Left-handed\nscrewdriver" if row == 7 else "Nut", str(row)]
        for row in range(90)
    ),
]


def test_a_table_goes_on_across_page_breaks(read):
    """Rows of all pages are records of one table; the head repeated on each page is none."""
    records = read(pdf(LONG), PdfFormat())

    assert [r.values["SKU"] for r in records] == [f"{row:03d}" for row in range(90)]
    assert records[7] == Record(
        9, {"SKU": "007", "Name": "Left-handed screwdriver", "Qty": "7"}, page=1
    )
    pages = [r.page for r in records]
    assert pages == sorted(pages)
    assert set(pages) == {1, 2, 3}
    assert [r.line for r in records if r.page == 2][:2] == [2, 3]


def test_tables_without_lines_are_told_by_their_gaps(read):
    """With the text strategy a table needs no ruled lines."""
    content = pdf([HEAD, ["1", "Nut", "5"], ["2", "Bolt", "6"]], grid=None)

    records = read(content, PdfFormat(strategy="text", other_tables="ignore"))

    assert ["1", "Nut", "5"] in [[*r.values.values()] for r in records]


def test_rows_of_other_tables_are_rejected_or_ignored(read):
    """A table of another width does not vanish silently, unless the options say so."""
    content = pdf([HEAD, ["1", "Nut", "5"]], [["Total", "5"]])

    assert read(content, PdfFormat()) == [
        Record(2, {"SKU": "1", "Name": "Nut", "Qty": "5"}, page=1),
        Reject(3, "", "has 2 cells where the header has 3", {"SKU": "Total", "Name": "5"}, page=1),
    ]
    assert len(read(content, PdfFormat(other_tables="ignore"))) == 1


def test_an_encrypted_pdf_needs_its_password(read, refusal):
    """Without the password, or with a wrong one, it says so; with it, the table is read."""
    content = encrypted(pdf([HEAD, ["1", "Nut", "5"]]))

    assert refusal(content, PdfFormat()) == (
        "is encrypted; set password, or have the sender write it without encryption"
    )
    assert refusal(content, PdfFormat(password=SecretStr("wrong"))) == (
        "is encrypted and the password given does not open it; ask the sender for the new one"
    )
    assert len(read(content, PdfFormat(password=SecretStr("secret")))) == 1


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, "the file is empty (0 bytes); have the sender write it again"),
        (
            b"sku;name\n",
            {},
            (
                "cannot be read as a PDF (PDFSyntaxError); it may be damaged or cut off: have the "
                "sender write it again"
            ),
        ),
        (
            pdf(),
            {},
            (
                "has no table; if it shows one without ruled lines set strategy to text, if it is "
                "a scanned picture it has no text to read"
            ),
        ),
        (
            pdf(LONG),
            {"max_pages": 2},
            "has 3 pages and the limit is 2; have the sender split it, or raise max_pages",
        ),
        (
            pdf(LONG),
            {"max_bytes": 1000},
            "is larger than 1,000 bytes; have the sender split it, or raise max_bytes",
        ),
    ],
)
def test_files_that_cannot_be_read(refusal, content, options, message):
    """What is no PDF, has no table or is too large says what to do."""
    assert refusal(content, PdfFormat(**options)) == message


GOOD = pdf([HEAD, ["1", "Nut", "5"]])


@settings(max_examples=30)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=20),
    end=st.integers(0, len(GOOD)) | st.just(len(GOOD)),
)
def test_any_damage_is_read_or_refused(opened, changes, end):
    """Whatever happened to a PDF, reading it ends in records or in a BadPayloadError."""
    content = bytearray(GOOD)
    for place, value in changes:
        content[place] = value
    try:
        for record in opened(bytes(content[:end]), PdfFormat()):
            assert record.line >= 1
    except BadPayloadError:
        pass
