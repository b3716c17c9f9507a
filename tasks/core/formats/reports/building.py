"""Builds a finished, named file from rows: written, packed and hashed, or nothing at all."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from blocks.errors import BadPayloadError
from tasks.core.formats.reports.csv_report import CsvReport, write_csv
from tasks.core.formats.reports.json_lines_report import JsonLinesReport, write_json_lines
from tasks.core.formats.reports.names import report_name
from tasks.core.formats.reports.packaging import Package, pack
from tasks.core.formats.reports.pdf_report import PdfReport, write_pdf
from tasks.core.formats.reports.report import Report, Summary
from tasks.core.formats.reports.rows import Rows
from tasks.core.formats.reports.xlsx_report import XlsxReport, write_xlsx
from tasks.core.formats.reports.xml_report import XmlReport, write_xml

ReportFormat = Annotated[
    CsvReport | XmlReport | XlsxReport | PdfReport | JsonLinesReport, Field(discriminator="kind")
]
NoData = Literal["empty", "skip", "fail"]


class ReportFile(NamedTuple):
    """A report on disk.

    Attributes:
        path: Where it is.
        name: Its name at the destination.
        size: Bytes.
        sha256: Digest of its content, in hexadecimal.
        media_type: For e-mail and browsers.
        summary: The totals of its rows.
    """

    path: Path
    name: str
    size: int
    sha256: str
    media_type: str
    summary: Summary


def write_report(path: Path, report: Report, rows: Rows, file_format: ReportFormat) -> Summary:
    """Write rows to a file in the given format; see the formats' own functions for errors."""
    match file_format:
        case CsvReport():
            return write_csv(path, report, rows, file_format)
        case XmlReport():
            return write_xml(path, report, rows, file_format)
        case XlsxReport():
            return write_xlsx(path, report, rows, file_format)
        case PdfReport():
            return write_pdf(path, report, rows, file_format)
        case JsonLinesReport():
            return write_json_lines(path, report, rows)


def build_report(
    folder: Path,
    report: Report,
    rows: Rows,
    file_format: ReportFormat,
    *,
    name_template: str = "{report}-{start}",
    package: Package | None = None,
    no_data: NoData = "empty",
) -> ReportFile | None:
    """Write the report's file into a folder, replacing an earlier one of the same name.

    Args:
        folder: Where to write; created if missing.
        report: The report.
        rows: The data; a generator is read once.
        file_format: Options of the format.
        name_template: As `report_name` reads it.
        package: Zip or encrypt it.
        no_data: What to do without rows: write an empty report, return None, or raise.

    Raises:
        BadPayloadError: There are no rows and `no_data` says fail, or a value has the wrong kind.
        MisconfiguredError: The format or package cannot be written as asked.
    """
    name = report_name(
        name_template, report=report.name, period=report.period, extension=file_format.extension
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    part = folder / f".{name}.part"
    try:
        summary = write_report(part, report, rows, file_format)
        if not summary.rows and no_data == "skip":
            return None
        if not summary.rows and no_data == "fail":
            raise BadPayloadError(
                f"there are no rows for {report.period}; check the source, or allow empty reports",
                system=f"report {report.name}",
                operation="build",
            )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    media_type = file_format.media_type
    if package:
        packed = folder / f"{name}{package.extension}"
        pack(path, packed, package, modified_at=report.period.end)
        path.unlink()
        path, media_type = packed, package.media_type
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ReportFile(path, path.name, path.stat().st_size, digest, media_type, summary)
