"""Keeps a built report until it is delivered everywhere, so that a retry sends the same file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tasks.core.formats.reports.building import ReportFile
from tasks.core.formats.reports.report import Kind, Number, Report, Summary
from tasks.core.sync.report_export.sending import BuiltReport

_MANIFEST = "report.json"
_REPORT = TypeAdapter(Report)


def cache_report(folder: Path, built: BuiltReport) -> None:
    """Write down beside the file what it is.

    Args:
        folder: The run's own, in which the file lies.
        built: What.
    """
    file = built.file
    manifest = {
        "report": _REPORT.dump_python(built.report, mode="json"),
        "name": file.name,
        "sha256": file.sha256,
        "media_type": file.media_type,
        "rows": file.summary.rows,
        "totals": {name: str(total) for name, total in file.summary.totals.items()},
        "bars": [[label, str(value)] for label, value in file.summary.bars],
    }
    part = folder / f".{_MANIFEST}.part"
    part.write_text(json.dumps(manifest))
    part.replace(folder / _MANIFEST)


def cached_report(folder: Path) -> BuiltReport | None:
    """What an earlier attempt built, if it is there and unchanged."""
    try:
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text())
        path = folder / manifest["name"]
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        report = _REPORT.validate_python(manifest["report"])
    except (OSError, ValueError, KeyError, ValidationError):
        return None
    if digest != manifest["sha256"]:
        return None
    with suppress(OSError):
        os.utime(folder)  # it is wanted: not to be swept while it is delivered
    kinds = {column.name: column.kind for column in report.columns}
    bar_kind = kinds[report.chart.value] if report.chart else Kind.NUMBER
    summary = Summary(
        rows=manifest["rows"],
        totals={name: _number(text, kinds[name]) for name, text in manifest["totals"].items()},
        bars=[(label, _number(text, bar_kind)) for label, text in manifest["bars"]],
    )
    file = ReportFile(path, path.name, path.stat().st_size, digest, manifest["media_type"], summary)
    return BuiltReport(report, file)


def drop_cached_report(folder: Path) -> None:
    """Remove everything; nothing to remove is no error."""
    shutil.rmtree(folder, ignore_errors=True)


def sweep_reports(folder: Path, *, older_than: timedelta, now: datetime) -> None:
    """Remove what runs left that failed for good.

    Args:
        folder: Holds a folder a run, named by its id; what is named otherwise, or holds
            something else, is left.
        older_than: Younger ones may still be retried.
        now: Aware.
    """
    before_s = (now - older_than).timestamp()
    with suppress(OSError):
        for path in list(folder.iterdir()):
            with suppress(OSError):  # another run sweeps, too
                if path.lstat().st_mtime < before_s and _is_of_a_run(path):
                    drop_cached_report(path)


def _is_of_a_run(folder: Path) -> bool:
    try:
        uuid.UUID(folder.name)
    except ValueError:
        return False
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return _MANIFEST in names or all(name.startswith(".") for name in names)


def _number(text: str, kind: Kind) -> Number:
    if kind is Kind.INTEGER:
        return int(text)
    return Decimal(text) if kind is Kind.MONEY else float(text)
