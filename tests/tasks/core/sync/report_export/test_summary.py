"""What people read about a report."""

from __future__ import annotations

from blocks.errors import UnreachableError
from tasks.core.formats.reports.building import build_report
from tasks.core.formats.reports.csv_report import CsvReport
from tasks.core.sync.report_export.delivery_ledger import Receipt
from tasks.core.sync.report_export.sending import BuiltReport
from tasks.core.sync.report_export.summary import DeliveryResult, report_summary, summarize

GONE = UnreachableError("no connection", system="sftp://x", operation="connect")


def outcomes(link: str | None) -> list[DeliveryResult]:
    receipt = Receipt("r.csv", 1, "ab", link)
    return [
        DeliveryResult("local-folder/office:", "delivered", receipt),
        DeliveryResult("s3-bucket/x:", "replaced", receipt, revision=2),
        DeliveryResult("sftp-server/x:", "failed", error=GONE),
    ]


def built(tmp_path, report, rows) -> BuiltReport:
    file = build_report(tmp_path, report, rows, CsvReport())
    assert file is not None
    return BuiltReport(report, file)


def test_the_story_has_totals_chart_and_links(tmp_path, report, rows):
    """Each destination with its result, its link or its reason."""
    summary = report_summary(built(tmp_path, report, rows), outcomes("https://x.example/r.csv"))
    assert "| Total | 1,234.40 |" in summary
    assert "| Müller & Söhne, GmbH | 1,234.50 | ████████████████████████ |" in summary
    assert "[r.csv](<https://x.example/r.csv>)" in summary
    assert "| replaced (revision 2) |" in summary
    assert "| failed |  | sftp://x: connect: no connection |" in summary


def test_nothing_in_the_data_is_markup(tmp_path, report, rows):
    """A customer's name makes no table cell, link or heading."""
    rows[0]["customer"] = "a | b\n# c [x](http://evil.example) <img src=x>"
    summary = report_summary(built(tmp_path, report, rows), outcomes("javascript:alert(1)"))
    assert "a \\| b \\# c \\[x\\]\\(http://evil\\.example\\) \\<img src=x\\>" in summary
    assert "](<javascript" not in summary


def test_the_summary_says_what_failed(tmp_path, report, rows):
    """One sentence: how many, and why the others did not."""
    good, told = summarize(built(tmp_path, report, rows), outcomes(None))
    assert not good
    assert told == (
        "sales-2026-07-16.csv: 2 of 3 destinations delivered; "
        "sftp-server/x:: sftp://x: connect: no connection"
    )
