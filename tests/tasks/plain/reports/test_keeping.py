"""Built reports kept for retries."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tasks.plain.reports.building import build_report
from tasks.plain.reports.csv_report import CsvReport
from tasks.plain.reports.delivering import BuiltReport
from tasks.plain.reports.keeping import forget_report, keep_report, kept_report


@pytest.fixture
def built(tmp_path, report, rows) -> BuiltReport:
    file = build_report(tmp_path / "run", report, rows, CsvReport())
    assert file is not None
    return BuiltReport(report, file)


def test_a_kept_report_comes_back_as_it_was(tmp_path, built):
    """The report, its file, its exact totals and its bars are the same after a restart."""
    keep_report(tmp_path / "run", built)
    kept = kept_report(tmp_path / "run")
    assert kept == built
    assert isinstance(kept.file.summary.totals["total"], Decimal)


def test_a_changed_or_missing_file_is_built_again(tmp_path, built):
    """What does not match its digest, or was never finished, does not count."""
    assert kept_report(tmp_path / "run") is None
    keep_report(tmp_path / "run", built)
    built.file.path.write_text("changed")
    assert kept_report(tmp_path / "run") is None
    built.file.path.unlink()
    assert kept_report(tmp_path / "run") is None
    (tmp_path / "run" / "report.json").write_text("{")
    assert kept_report(tmp_path / "run") is None


def test_a_forgotten_report_is_gone(tmp_path, built):
    """Nothing of it stays on the disk; forgetting twice is no error."""
    keep_report(tmp_path / "run", built)
    forget_report(tmp_path / "run")
    forget_report(tmp_path / "run")
    assert not (tmp_path / "run").exists()
