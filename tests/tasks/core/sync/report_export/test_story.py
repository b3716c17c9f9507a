"""What people read about a report."""

from __future__ import annotations

from blocks.errors import UnreachableError
from tasks.core.formats.reports.building import build_report
from tasks.core.formats.reports.csv_report import CsvReport
from tasks.core.sync.report_export.deliveries import Receipt
from tasks.core.sync.report_export.delivering import BuiltReport
from tasks.core.sync.report_export.story import DeliveryOutcome, report_story, summarize

GONE = UnreachableError("no connection", system="sftp://x", operation="connect")


def outcomes(link: str | None) -> list[DeliveryOutcome]:
    receipt = Receipt("r.csv", 1, "ab", link)
    return [
        DeliveryOutcome("local-folder/office:", "delivered", receipt),
        DeliveryOutcome("s3-bucket/x:", "replaced", receipt, revision=2),
        DeliveryOutcome("sftp-server/x:", "failed", error=GONE),
    ]


def built(tmp_path, report, rows) -> BuiltReport:
    file = build_report(tmp_path, report, rows, CsvReport())
    assert file is not None
    return BuiltReport(report, file)


def test_the_story_has_totals_chart_and_links(tmp_path, report, rows):
    """Each destination with its result, its link or its reason."""
    story = report_story(built(tmp_path, report, rows), outcomes("https://x.example/r.csv"))
    assert "| Total | 1,234.40 |" in story
    assert "| Müller & Söhne, GmbH | 1,234.50 | ████████████████████████ |" in story
    assert "[r.csv](<https://x.example/r.csv>)" in story
    assert "| replaced (revision 2) |" in story
    assert "| failed |  | sftp://x: connect: no connection |" in story


def test_nothing_in_the_data_is_markup(tmp_path, report, rows):
    """A customer's name makes no table cell, link or heading."""
    rows[0]["customer"] = "a | b\n# c [x](http://evil.example) <img src=x>"
    story = report_story(built(tmp_path, report, rows), outcomes("javascript:alert(1)"))
    assert "a \\| b \\# c \\[x\\]\\(http://evil\\.example\\) \\<img src=x\\>" in story
    assert "](<javascript" not in story


def test_the_summary_says_what_failed(tmp_path, report, rows):
    """One sentence: how many, and why the others did not."""
    good, told = summarize(built(tmp_path, report, rows), outcomes(None))
    assert not good
    assert told == (
        "sales-2026-07-16.csv: 2 of 3 destinations delivered; "
        "sftp-server/x:: sftp://x: connect: no connection"
    )
