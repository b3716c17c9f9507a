"""Keeps a built report until it is delivered everywhere, so that a retry sends the same file."""

from __future__ import annotations

import hashlib
import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tasks.plain.reports.building import ReportFile
from tasks.plain.reports.delivering import BuiltReport
from tasks.plain.reports.report import Kind, Number, Report, Summary

_MANIFEST = "report.json"
_REPORT = TypeAdapter(Report)


def keep_report(folder: Path, built: BuiltReport) -> None:
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


def kept_report(folder: Path) -> BuiltReport | None:
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
    kinds = {column.name: column.kind for column in report.columns}
    bar_kind = kinds[report.chart.value] if report.chart else Kind.NUMBER
    summary = Summary(
        rows=manifest["rows"],
        totals={name: _number(text, kinds[name]) for name, text in manifest["totals"].items()},
        bars=[(label, _number(text, bar_kind)) for label, text in manifest["bars"]],
    )
    file = ReportFile(path, path.name, path.stat().st_size, digest, manifest["media_type"], summary)
    return BuiltReport(report, file)


def forget_report(folder: Path) -> None:
    """Remove everything; nothing to remove is no error."""
    shutil.rmtree(folder, ignore_errors=True)


def _number(text: str, kind: Kind) -> Number:
    if kind is Kind.INTEGER:
        return int(text)
    return Decimal(text) if kind is Kind.MONEY else float(text)
