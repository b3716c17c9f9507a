"""XLSX reports, read back with another library."""

from __future__ import annotations

import openpyxl
import pytest
from pydantic import ValidationError

from blocks.errors import MisconfiguredError
from tasks.core.formats.reports.xlsx_report import XlsxReport, write_xlsx


@pytest.fixture
def written(tmp_path, report, rows):
    rows[2] = {**rows[2], "order_no": "x" * 40_000, "lines": 12345678901234567890}
    write_xlsx(tmp_path / "r.xlsx", report, rows, XlsxReport())
    return openpyxl.load_workbook(tmp_path / "r.xlsx")


def test_cells_have_their_types(written):
    """Numbers are numbers, dates are dates, text that looks like a formula is text."""
    data = written["Data"]
    values = [cell.value for cell in data[2]]
    assert [str(value) for value in values[2:4]] == ["2026-07-17 10:30:00", "2026-08-01 00:00:00"]
    assert values[:2] + values[4:] == ["SO-1", "Müller & Söhne, GmbH", 3, 0.5, 1234.5, True]
    assert data["B3"].value.startswith("=HYPERLINK")
    assert data["B3"].data_type == "s"
    assert data["G2"].number_format == "#,##0.00"
    assert data["C2"].number_format == "yyyy-mm-dd hh:mm:ss"


def test_what_a_cell_cannot_hold_is_made_visible(written):
    """Over-long text ends in an ellipsis, integers that Excel would round stay exact as text."""
    data = written["Data"]
    assert len(data["A4"].value) == 32_767
    assert data["A4"].value.endswith("…")
    assert data["E4"].value == "12345678901234567890"


def test_the_sheet_is_ready_for_use(written):
    """Frozen head, filter, fitting widths, and totals that follow the filter."""
    data = written["Data"]
    assert data.freeze_panes == "A2"
    assert data.auto_filter.ref == "A1:H4"
    assert data["A5"].value == "Total"
    assert data["G5"].value == "=SUBTOTAL(109,G2:G4)"
    assert data.column_dimensions["B"].width >= len('=HYPERLINK("http://x.example","株式会社")')
    assert data.print_title_rows == "$1:$1"


def test_the_summary_comes_first(written):
    """Title, period, totals and a chart stand on the sheet that opens."""
    front = written["Summary"]
    assert written.active is front
    assert front["A1"].value == "Weekly sales"
    assert front["A2"].value == "16 July 2026, 19:00 to 23 July 2026, 19:00 (Europe/Berlin)"
    assert [(row[0].value, row[1].value) for row in front["A4:B7"]] == [
        ("Rows", 3), ("lines", "12345678901234567892"), ("weight", -1.75), ("Total", 1234.4),
    ]  # fmt: skip
    assert len(front._charts) == 1


def test_the_same_data_gives_the_same_bytes(tmp_path, report, rows):
    """No clock and no random number gets in, so a repeated delivery can be recognised."""
    for name in ("a", "b"):
        write_xlsx(tmp_path / name, report, rows, XlsxReport())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_rows_give_a_sheet_with_a_head(tmp_path, report):
    """An empty report opens and says zero."""
    write_xlsx(tmp_path / "r.xlsx", report, [], XlsxReport())
    data = openpyxl.load_workbook(tmp_path / "r.xlsx")["Data"]
    assert [cell.value for cell in data[2]] == ["Total", None, None, None, 0, 0, 0, None]


def test_more_rows_than_allowed_are_refused(tmp_path, report, rows):
    """Too many rows are an error that says what to do instead, not a cut file."""
    with pytest.raises(MisconfiguredError, match="more than 2 rows; write CSV"):
        write_xlsx(tmp_path / "r.xlsx", report, rows, XlsxReport(max_rows=2))


def test_no_sheet_holds_more_than_excel_can(tmp_path):
    """The limit can be lowered and not raised."""
    with pytest.raises(ValidationError):
        XlsxReport(max_rows=1_048_577)
