"""Built reports kept for retries."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from tasks.core.formats.reports.building import build_report
from tasks.core.formats.reports.csv_report import CsvReport
from tasks.core.sync.report_export.report_cache import (
    cache_report,
    cached_report,
    drop_cached_report,
    sweep_reports,
)
from tasks.core.sync.report_export.sending import BuiltReport


@pytest.fixture
def built(tmp_path, report, rows) -> BuiltReport:
    file = build_report(tmp_path / "run", report, rows, CsvReport())
    assert file is not None
    return BuiltReport(report, file)


def test_a_kept_report_comes_back_as_it_was(tmp_path, built):
    """The report, its file, its exact totals and its bars are the same after a restart."""
    cache_report(tmp_path / "run", built)
    kept = cached_report(tmp_path / "run")
    assert kept == built
    assert isinstance(kept.file.summary.totals["total"], Decimal)


def test_a_changed_or_missing_file_is_built_again(tmp_path, built):
    """What does not match its digest, or was never finished, does not count."""
    assert cached_report(tmp_path / "run") is None
    cache_report(tmp_path / "run", built)
    built.file.path.write_text("changed")
    assert cached_report(tmp_path / "run") is None
    built.file.path.unlink()
    assert cached_report(tmp_path / "run") is None
    (tmp_path / "run" / "report.json").write_text("{")
    assert cached_report(tmp_path / "run") is None


def test_old_reports_are_swept_and_nothing_else(tmp_path, built):
    """What a run that failed for good left goes after a while; a folder that is not ours stays."""
    old, half, young, retried, stranger = (tmp_path / "runs" / str(uuid4()) for _ in range(5))
    named = tmp_path / "runs" / "named"
    for folder in (old, half, young, retried, stranger, named):
        folder.mkdir(parents=True)
    for folder in (old, young, retried, named):
        (folder / built.file.name).write_bytes(built.file.path.read_bytes())
        cache_report(folder, built)
    (half / ".sales.csv.part").touch()
    (stranger / "family.jpg").touch()
    for folder in (old, half, retried, stranger, named):
        os.utime(folder, (0, 0))
    assert cached_report(retried) is not None
    sweep_reports(tmp_path / "runs", older_than=timedelta(days=14), now=datetime.now(UTC))
    assert set((tmp_path / "runs").iterdir()) == {young, retried, stranger, named}
    sweep_reports(tmp_path / "none", older_than=timedelta(days=14), now=datetime.now(UTC))


def test_a_forgotten_report_is_gone(tmp_path, built):
    """Nothing of it stays on the disk; forgetting twice is no error."""
    cache_report(tmp_path / "run", built)
    drop_cached_report(tmp_path / "run")
    drop_cached_report(tmp_path / "run")
    assert not (tmp_path / "run").exists()
