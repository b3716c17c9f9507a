"""From rows to one finished file."""

from __future__ import annotations

import hashlib
import zipfile

import pytest
from pydantic import TypeAdapter

from blocks.errors import BadPayloadError, MisconfiguredError
from tasks.core.formats.reports.building import ReportFormat, build_report
from tasks.core.formats.reports.csv_report import CsvReport
from tasks.core.formats.reports.packaging import ZipPackage


@pytest.mark.parametrize("kind", ["csv", "xml", "xlsx", "pdf", "json_lines"])
def test_every_format_is_built_by_name(tmp_path, report, rows, kind):
    """Options as they come from a run's parameters give a named file with size and digest."""
    file_format = TypeAdapter(ReportFormat).validate_python({"kind": kind})
    built = build_report(tmp_path, report, rows, file_format)
    assert built is not None
    assert built.name == f"sales-2026-07-16{file_format.extension}"
    content = built.path.read_bytes()
    assert (built.size, built.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert built.media_type == file_format.media_type
    assert built.summary.rows == 3
    assert [path.name for path in tmp_path.iterdir()] == [built.name]


def test_a_packed_report_is_one_file(tmp_path, report, rows):
    """The archive is named after the file in it, which is not left beside it."""
    built = build_report(
        tmp_path, report, rows, CsvReport(), name_template="{end:%G-W%V}", package=ZipPackage()
    )
    assert built is not None
    assert (built.name, built.media_type) == ("2026-W30.csv.zip", "application/zip")
    assert [path.name for path in tmp_path.iterdir()] == ["2026-W30.csv.zip"]
    with zipfile.ZipFile(built.path) as archive:
        assert archive.namelist() == ["2026-W30.csv"]


def test_no_data_goes_by_policy(tmp_path, report):
    """Without rows: an empty report, none, or an error that names the period."""
    built = build_report(tmp_path / "a", report, [], CsvReport(), no_data="empty")
    assert built is not None
    assert built.summary.rows == 0
    assert build_report(tmp_path / "b", report, [], CsvReport(), no_data="skip") is None
    with pytest.raises(BadPayloadError, match="no rows for 16 July 2026"):
        build_report(tmp_path / "b", report, [], CsvReport(), no_data="fail")
    assert list((tmp_path / "b").iterdir()) == []


def test_a_failure_leaves_the_last_good_file(tmp_path, report, rows):
    """A run that breaks half-way neither replaces nor half-writes a file."""
    built = build_report(tmp_path, report, rows, CsvReport())
    assert built is not None
    before = built.path.read_bytes()
    with pytest.raises(MisconfiguredError):
        build_report(tmp_path, report, rows, CsvReport(encoding="ascii"))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]
