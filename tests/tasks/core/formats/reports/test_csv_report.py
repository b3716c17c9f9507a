"""CSV reports."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from blocks.errors import MisconfiguredError
from tasks.core.formats.reports.csv_report import CsvReport, write_csv
from tasks.core.formats.reports.report import Report, ReportColumn

FORMULA_STARTS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"


def read(path: Path, delimiter: str = ",", encoding: str = "utf-8-sig") -> list[list[str]]:
    with path.open(newline="", encoding=encoding) as file:
        return list(csv.reader(file, delimiter=delimiter))


def test_values_are_written_as_data(tmp_path, report, rows):
    """Local time, exact amounts, signs kept on numbers, an apostrophe before what might run."""
    write_csv(tmp_path / "r.csv", report, rows, CsvReport(totals=True))
    assert read(tmp_path / "r.csv") == [
        ["Order", "Customer", "Ordered at", "due", "lines", "weight", "Total", "paid"],
        ["SO-1", "Müller & Söhne, GmbH", "2026-07-17 10:30:00", "2026-08-01", "3", "0.5",
         "1234.50", "True"],
        ["'-SO-2", "'=HYPERLINK(\"http://x.example\",\"株式会社\")", "2026-07-19 00:00:00", "",
         "-1", "-2.25", "-0.10", "False"],
        [""] * 8,
        ["Total", "", "", "", "2", "-1.75", "1234.40", ""],
    ]  # fmt: skip


def test_delimiter_encoding_and_decimal_comma_are_free(tmp_path, report, rows):
    """What a German Excel opens by double click: semicolons, commas, cp1252."""
    options = CsvReport(delimiter=";", encoding="cp1252", decimal_comma=True, unencodable="replace")
    write_csv(tmp_path / "r.csv", report, rows, options)
    lines = read(tmp_path / "r.csv", ";", "cp1252")
    assert lines[1][5:7] == ["0,5", "1234,50"]
    assert lines[2][1].endswith('"????")')


def test_a_character_that_the_encoding_lacks_is_an_error(tmp_path, report, rows):
    """Nothing is lost silently: the error names encoding and character."""
    with pytest.raises(MisconfiguredError, match=r"cp1252 lacks the character U\+682A"):
        write_csv(tmp_path / "r.csv", report, rows, CsvReport(encoding="cp1252"))


def test_headings_cannot_run_either(tmp_path, report):
    """A heading that starts like a formula is neutralised too."""
    one = Report("r", "R", report.period, (ReportColumn(name="a", title="=1+1"),))
    write_csv(tmp_path / "r.csv", one, [], CsvReport())
    assert read(tmp_path / "r.csv") == [["'=1+1"]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="utf-8")), min_size=1))
def test_any_text_comes_back_and_none_can_run(tmp_path, report, texts):
    """Whatever the text, a reader gets it back, save for the apostrophe that disarms it."""
    one = Report("r", "R", report.period, (ReportColumn(name="a"), ReportColumn(name="b")))
    write_csv(tmp_path / "r.csv", one, [{"a": text, "b": ""} for text in texts], CsvReport())
    cells = [row[0] for row in read(tmp_path / "r.csv")[1:]]
    assert not any(cell.startswith(tuple(FORMULA_STARTS)) for cell in cells)
    assert [
        cell[1:] if text.startswith(tuple(FORMULA_STARTS)) else cell
        for cell, text in zip(cells, texts, strict=True)
    ] == texts


@pytest.mark.parametrize(
    "fields", [{"delimiter": ";;"}, {"delimiter": "a"}, {"delimiter": '"'}, {"encoding": "utf8mb4"}]
)
def test_options_that_no_reader_could_read_are_refused(fields):
    """Delimiters that occur in data and unknown encodings fail when the options are made."""
    with pytest.raises(ValidationError):
        CsvReport(**fields)


def test_totals_of_no_rows_are_plain_zeros(tmp_path, report):
    """An empty report adds up to 0, not to 0.000000."""
    write_csv(tmp_path / "r.csv", report, [], CsvReport(totals=True))
    (totals,) = read(tmp_path / "r.csv")[1:]
    assert totals == ["Total", "", "", "", "0", "0", "0", ""]


def test_a_decimal_comma_needs_another_delimiter(tmp_path, report):
    """12,50 in a file separated by commas would be two cells."""
    with pytest.raises(ValueError, match="use ;"):
        write_csv(tmp_path / "r.csv", report, [], CsvReport(decimal_comma=True))
