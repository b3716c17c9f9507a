"""PDF reports, read back with other libraries."""

from __future__ import annotations

import re
from decimal import Decimal

import pypdf
import pytest

from blocks.errors import MisconfiguredError
from tasks.core.formats.reports.pdf_report import PdfReport, write_pdf
from tasks.core.formats.reports.report import Report, ReportColumn


def pages(path) -> list[str]:
    with pypdf.PdfReader(path) as reader:
        return [page.extract_text() for page in reader.pages]


def test_the_first_page_tells_the_story(tmp_path, report, rows):
    """Title, period, totals and the chart's bars, then the rows with their totals."""
    rows = rows[:2] * 2
    write_pdf(tmp_path / "r.pdf", report, rows, PdfReport())
    [text] = pages(tmp_path / "r.pdf")
    assert "Weekly sales" in text
    assert "16 July 2026, 19:00 to 23 July 2026, 19:00 (Europe/Berlin)" in text
    assert "Total by Customer" in text
    assert "2,468.80" in text
    assert "2026-07-17 10:30" in text
    assert "Page 1 of 1" in " ".join(text.split())


def test_every_page_repeats_the_head_and_says_its_number(tmp_path, report, rows):
    """Nothing is lost at page breaks; the last page ends in the totals."""
    many = [{**rows[0], "order_no": f"SO-{i:05}"} for i in range(200)]
    write_pdf(tmp_path / "r.pdf", report, many, PdfReport())
    texts = pages(tmp_path / "r.pdf")
    assert len(texts) > 3
    for number, text in enumerate(texts, 1):
        assert "Ordered at" in text
        assert f"Page {number} of {len(texts)}" in " ".join(text.split())
    assert re.findall(r"SO-\d{5}", "".join(texts)) == [row["order_no"] for row in many]
    assert "246,900.00" in texts[-1]
    assert "246,900.00" not in texts[1]


def test_scripts_survive(tmp_path, report, rows):
    """Text of other scripts can be found and copied again."""
    names = ["Ολυμπιακή", "Торговый дом", "株式会社山田", "한국무역", "ქართული", "Łódź"]
    many = [{**rows[0], "customer": name} for name in names]
    write_pdf(tmp_path / "r.pdf", report, many, PdfReport())
    text = "".join(pages(tmp_path / "r.pdf"))
    assert [name for name in names if name not in text] == []


def test_numbers_are_shown_as_asked(tmp_path, report, rows):
    """A decimal comma is used in cells, totals and bars alike."""
    write_pdf(tmp_path / "r.pdf", report, rows[:1], PdfReport(decimal_comma=True))
    text = "".join(pages(tmp_path / "r.pdf"))
    assert text.count("1.234,50") == 4
    assert "1,234.50" not in text


def test_a_wide_table_turns_the_paper_and_breaks_no_number(tmp_path, report):
    """Sixteen columns fit on landscape paper, and each number is one piece of text."""
    columns = tuple(
        ReportColumn(name=f"c{i}", kind="money" if i % 2 else "text", total=bool(i % 2))
        for i in range(16)
    )
    one = Report("wide", "Wide", report.period, columns)
    row = {f"c{i}": Decimal("123456789.10") if i % 2 else "some longer text" for i in range(16)}
    write_pdf(tmp_path / "r.pdf", one, [row] * 3, PdfReport())
    with pypdf.PdfReader(tmp_path / "r.pdf") as reader:
        box = reader.pages[0].mediabox
        assert box.width > box.height
        assert reader.pages[0].extract_text().count("123,456,789.10") == 8 * 3


def test_no_rows_are_said(tmp_path, report):
    """An empty report is a page that says that there was nothing."""
    write_pdf(tmp_path / "r.pdf", report, [], PdfReport(paper="letter"))
    [text] = pages(tmp_path / "r.pdf")
    assert "No rows in this period." in text


def test_the_same_data_gives_the_same_bytes(tmp_path, report, rows):
    """No clock and no random number gets in, so a repeated delivery can be recognised."""
    for name in ("a", "b"):
        write_pdf(tmp_path / name, report, rows, PdfReport())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_fonts_are_embedded(tmp_path, report, rows):
    """What is drawn in Latin script looks the same on every machine."""
    write_pdf(tmp_path / "r.pdf", report, rows[:1], PdfReport())
    with pypdf.PdfReader(tmp_path / "r.pdf") as reader:
        fonts = reader.pages[0]["/Resources"]["/Font"]
        embedded = {
            font["/BaseFont"].partition("+")[2]
            for font in (ref.get_object() for ref in fonts.values())
            if "/FontDescriptor" in font
        }
    assert embedded == {"NotoSans-Regular", "NotoSans-Bold"}


def test_too_many_rows_are_refused(tmp_path, report, rows):
    """Nobody reads ten thousand pages: the error says what to use instead."""
    with pytest.raises(MisconfiguredError, match="more than 2 rows; raise max_rows"):
        write_pdf(tmp_path / "r.pdf", report, rows, PdfReport(max_rows=2))
