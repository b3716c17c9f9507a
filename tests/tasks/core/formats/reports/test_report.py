"""What a report adds up to."""

from __future__ import annotations

from decimal import Decimal

import pytest
from pydantic import ValidationError

from tasks.core.formats.reports.report import Chart, Report, ReportColumn, Summary, summing
from tasks.core.formats.reports.rows import column_chunks


def summed(report: Report, rows) -> Summary:
    summary = Summary()
    for _ in summing(column_chunks(rows, report), report, summary):
        pass
    return summary


def test_totals_are_exact_and_leave_out_what_is_missing(report, rows):
    """Money adds up as Decimal, integers as int; rows without a value count as rows."""
    summary = summed(report, rows * 1000)
    assert summary.rows == 3000
    assert summary.totals == {"lines": 2000, "weight": -1750.0, "total": Decimal("1234400.00")}
    assert isinstance(summary.totals["total"], Decimal)


def test_bars_are_ranked_and_the_small_ones_go_together(report, rows):
    """Twelve bars at most: the rest is one bar named Other, and nothing is lost."""
    many = [{**rows[0], "customer": f"c{i:02}", "total": i} for i in range(1, 21)]
    bars = summed(report, many).bars
    assert bars[:2] == [("c20", 20), ("c19", 19)]
    assert bars[-1] == ("Other", sum(range(1, 10)))
    assert len(bars) == 12
    assert sum(value for _, value in bars) == 210


def test_no_rows_add_up_to_nothing(report):
    """An empty report has totals of zero and no bars."""
    assert summed(report, []) == Summary(0, {"lines": 0, "weight": 0, "total": 0}, [])


def test_only_numbers_have_totals():
    """A total of text is refused when the column is declared."""
    with pytest.raises(ValidationError, match="only numbers"):
        ReportColumn(name="customer", total=True)


@pytest.mark.parametrize(
    ("columns", "chart", "says"),
    [
        ((), None, "at least one"),
        ((ReportColumn(name="a"), ReportColumn(name="a")), None, "its own name"),
        ((ReportColumn(name="a"),), Chart(label="a", value="b"), "names of columns"),
        ((ReportColumn(name="a"),), Chart(label="a", value="a"), "no number"),
    ],
)
def test_a_report_that_cannot_be_is_refused(report, columns, chart, says):
    """Columns and chart are checked before anything is fetched."""
    with pytest.raises(ValueError, match=says):
        Report("x", "X", report.period, columns, chart)
