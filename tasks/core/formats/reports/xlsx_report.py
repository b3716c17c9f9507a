"""Writes XLSX: a summary with a chart, and typed data under a frozen header with filters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import xlsxwriter
from pydantic import BaseModel, ConfigDict, Field
from xlsxwriter.utility import xl_col_to_name

from blocks.errors import MisconfiguredError
from tasks.core.formats.reports.report import Kind, Number, Report, ReportColumn, Summary, summing
from tasks.core.formats.reports.rows import Rows, column_chunks

_MAX_ROWS = 1_048_574  # a sheet's 1,048,576 minus header and totals
_MAX_TEXT = 32_767
_MAX_EXACT = 10**15  # a cell's number is a double
_WIDEST = 60
_INK, _BAND, _RULE = "#1F2A44", "#E8ECF4", "#9AA5BD"


class XlsxReport(BaseModel):
    """How an XLSX report is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["xlsx"] = "xlsx"
    max_rows: int = Field(
        default=_MAX_ROWS, ge=1, le=_MAX_ROWS, description="Most rows; a report with more fails."
    )

    @property
    def extension(self) -> str:
        """The extension of the file's name."""
        return ".xlsx"

    @property
    def media_type(self) -> str:
        """Source: ECMA-376, as registered with IANA."""
        return "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def write_xlsx(path: Path, report: Report, rows: Rows, options: XlsxReport) -> Summary:
    """Write a workbook with the sheets "Summary" and "Data", in constant memory.

    Text is written as text, so nothing in it runs as a formula. Integers beyond 15 digits, which
    Excel would round, become text; text beyond a cell's 32,767 characters is cut with "…".

    Raises:
        MisconfiguredError: There are more rows than `max_rows`.
        BadPayloadError: As `column_chunks`.
    """
    summary = Summary()
    # The same data always yields the same bytes: no clock is read.
    created = report.period.end_at.replace(tzinfo=None)
    with xlsxwriter.Workbook(str(path), {"constant_memory": True}) as book:
        book.set_properties({"title": f"{report.title}, {report.period}", "created": created})
        front = book.add_worksheet("Summary")
        data = _DataSheet(book, report, options.max_rows)
        for chunk in summing(column_chunks(rows, report), report, summary):
            data.write(chunk)
        data.finish(summary)
        _write_front(book, front, report, summary)
        front.activate()
    return summary


class _DataSheet:
    """The sheet with the rows, written strictly top to bottom."""

    def __init__(self, book: Any, report: Report, max_rows: int) -> None:
        self._max_rows = max_rows
        self._report = report
        self._sheet = book.add_worksheet("Data")
        self._bold = {"bold": True, "bg_color": _BAND, "top": 1, "top_color": _RULE}
        self._book = book
        self._row = 1
        self._widths = [len(column.heading) + 4 for column in report.columns]
        self._writers = [self._writer(column) for column in report.columns]
        self._sheet.freeze_panes(1, 0)
        for i, column in enumerate(report.columns):
            head = book.add_format(
                {
                    "bold": True,
                    "font_color": "white",
                    "bg_color": _INK,
                    "valign": "vcenter",
                    "align": "right" if column.kind.is_numeric else "left",
                }
            )
            self._sheet.write_string(0, i, column.heading, head)
        self._sheet.repeat_rows(0)
        self._sheet.set_landscape()
        self._sheet.fit_to_pages(1, 0)

    def write(self, chunk: Sequence[Sequence[Any]]) -> None:
        """Add the chunk's rows."""
        if self._row + len(chunk[0]) - 1 > self._max_rows:
            raise MisconfiguredError(
                f"there are more than {self._max_rows:,} rows; write CSV, or raise max_rows",
                system=f"report {self._report.name}",
                operation="write XLSX",
            )
        if self._row == 1:
            self._fit(chunk)
        row = self._row
        writers = list(enumerate(self._writers))
        for values in zip(*chunk, strict=True):
            for i, write in writers:
                if values[i] is not None:
                    write(row, i, values[i])
            row += 1
        self._row = row

    def finish(self, summary: Summary) -> None:
        """Set widths, the filter and the row of totals."""
        last = self._row - 1
        for i, column in enumerate(self._report.columns):
            self._sheet.set_column(i, i, column.width or min(self._widths[i], _WIDEST))
        self._sheet.autofilter(0, 0, max(last, 1), len(self._widths) - 1)
        if not summary.totals:
            return
        label = self._book.add_format(self._bold)
        for i, column in enumerate(self._report.columns):
            if not column.total:
                if i:
                    self._sheet.write_blank(self._row, i, None, label)
                else:
                    self._sheet.write_string(self._row, i, "Total", label)
                continue
            look = self._book.add_format({**self._bold, "num_format": _number_format(column)})
            value = summary.totals[column.name]
            if last:
                name = xl_col_to_name(i)
                # 109 sums only the rows that the filter leaves visible.
                formula = f"=SUBTOTAL(109,{name}2:{name}{last + 1})"
                self._sheet.write_formula(self._row, i, formula, look, value)
            else:
                self._sheet.write_number(self._row, i, value, look)

    def _fit(self, chunk: Sequence[Sequence[Any]]) -> None:
        for i, (column, values) in enumerate(zip(self._report.columns, chunk, strict=True)):
            longest = max((_shown_length(value, column) for value in values), default=0)
            self._widths[i] = max(self._widths[i], longest + 2)

    def _writer(self, column: ReportColumn) -> Callable[[int, int, Any], Any]:
        sheet = self._sheet
        align = "right" if column.kind.is_numeric else "left"
        look = self._book.add_format({"num_format": _number_format(column), "align": align})
        if column.kind is Kind.TEXT:
            return lambda row, i, value: sheet.write_string(row, i, _fitting(value))
        if column.kind is Kind.YES_NO:
            write: Callable[[int, int, Any], Any] = sheet.write_boolean
            return write
        if column.kind.is_numeric:
            return lambda row, i, value: _write_amount(sheet, row, i, value, look)
        return lambda row, i, value: (
            sheet.write_datetime(row, i, _naive(value), look)
            if value.year >= 1900
            else sheet.write_string(row, i, value.isoformat())
        )


def _write_front(book: Any, sheet: Any, report: Report, summary: Summary) -> None:
    label = book.add_format({"font_color": "#5A6478"})
    bold = book.add_format({"bold": True})
    sheet.hide_gridlines(2)
    sheet.set_landscape()
    sheet.fit_to_pages(1, 1)
    sheet.set_column(0, 0, 28)
    sheet.set_column(1, 1, 24)
    sheet.write_string(
        0, 0, report.title, book.add_format({"bold": True, "font_size": 18, "font_color": _INK})
    )
    sheet.write_string(1, 0, str(report.period), label)
    sheet.write_string(3, 0, "Rows", label)
    sheet.write_number(
        3, 1, summary.rows, book.add_format({"bold": True, "num_format": "#,##0", "align": "right"})
    )
    row = 4
    for column in report.columns:
        if column.total:
            look = book.add_format({"bold": True, "num_format": _number_format(column)})
            sheet.write_string(row, 0, column.heading, label)
            _write_amount(sheet, row, 1, summary.totals[column.name], look)
            row += 1
    if report.chart and summary.bars:
        _write_chart(book, sheet, report, summary, row + 1, bold)


def _write_chart(
    book: Any, sheet: Any, report: Report, summary: Summary, row: int, bold: Any
) -> None:
    assert report.chart  # noqa: S101 (the caller checked)
    value = report.columns[report.position(report.chart.value)]
    label = report.columns[report.position(report.chart.label)]
    look = book.add_format({"num_format": _number_format(value)})
    sheet.write_string(row, 0, label.heading, bold)
    sheet.write_string(row, 1, value.heading, book.add_format({"bold": True, "align": "right"}))
    first = row + 1
    for i, (name, amount) in enumerate(summary.bars):
        sheet.write_string(first + i, 0, _fitting(name) or "(none)")
        _write_amount(sheet, first + i, 1, amount, look)
    last = first + len(summary.bars) - 1
    chart = book.add_chart({"type": "bar"})
    chart.add_series(
        {
            "name": value.heading,
            "categories": ["Summary", first, 0, last, 0],
            "values": ["Summary", first, 1, last, 1],
            "fill": {"color": "#3B6FB6"},
            "gap": 60,
            "data_labels": {"value": True, "num_format": "#,##0"},
        }
    )
    chart.set_title({"name": f"{value.heading} by {label.heading}", "name_font": {"size": 12}})
    chart.set_legend({"none": True})
    chart.set_y_axis({"reverse": True, "line": {"none": True}})
    chart.set_x_axis({"visible": False, "major_gridlines": {"visible": False}})
    chart.set_size({"width": 640, "height": 120 + 34 * len(summary.bars)})
    sheet.insert_chart(3, 3, chart)


def _write_amount(sheet: Any, row: int, column: int, value: Number, look: Any) -> None:
    if -_MAX_EXACT < value < _MAX_EXACT or isinstance(value, float):
        sheet.write_number(row, column, value, look)
    else:
        sheet.write_string(row, column, f"{value:d}" if isinstance(value, int) else f"{value:f}")


def _number_format(column: ReportColumn) -> str:
    if column.kind is Kind.INTEGER:
        return "#,##0"
    if column.kind.is_numeric:
        return "#,##0" + ("." + "0" * column.decimals if column.decimals else "")
    return {Kind.DATE: "yyyy-mm-dd", Kind.INSTANT: "yyyy-mm-dd hh:mm:ss"}.get(
        column.kind, "General"
    )


def _shown_length(value: Any, column: ReportColumn) -> int:
    if value is None:
        return 0
    if column.kind is Kind.INSTANT:
        return 19
    if column.kind.is_numeric:
        return len(f"{value:,.{0 if column.kind is Kind.INTEGER else column.decimals}f}")
    # East Asian characters are about two digits wide.
    return sum(2 if char > "\u2e80" else 1 for char in str(value)[:_WIDEST])


def _fitting(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"


def _naive(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value
