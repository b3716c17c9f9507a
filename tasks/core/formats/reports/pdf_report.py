"""Writes a printable PDF: totals, a chart, then the rows, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from reportlab.lib.colors import HexColor, white
from reportlab.lib.pagesizes import A4, LETTER, landscape
from reportlab.pdfgen.canvas import Canvas

from blocks.errors import MisconfiguredError
from tasks.core.formats.reports.pdf_text import Typeface
from tasks.core.formats.reports.report import Kind, Report, ReportColumn, Summary, summing
from tasks.core.formats.reports.rows import Rows, column_chunks

_INK, _GREY, _RULE = HexColor("#1F2A44"), HexColor("#5A6478"), HexColor("#C9D0DE")
_BAND, _BAR, _LOSS = HexColor("#F4F6FA"), HexColor("#3B6FB6"), HexColor("#B64A3B")
_MARGIN, _FOOT = 42.0, 40.0
_PAD = 5.0
_SIZES = (8.5, 7.5, 6.5)
_SAMPLE = 500
_WIDEST = 190.0
_NARROWEST = 42.0
_MAX_LINES = 3


class PdfReport(BaseModel):
    """How a PDF report is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pdf"] = "pdf"
    paper: Literal["A4", "letter"] = Field(
        default="A4", description="Paper; wide tables turn it to landscape."
    )
    decimal_comma: bool = Field(default=False, description="Show 1.234,50 instead of 1,234.50.")
    max_rows: int = Field(default=50_000, ge=1, description="Most rows; a report with more fails.")
    fonts: tuple[Path, ...] = Field(
        default=(), description="TrueType files for scripts that the built-in fonts lack."
    )

    @property
    def extension(self) -> str:
        """The extension of the file's name."""
        return ".pdf"

    @property
    def media_type(self) -> str:
        """Source: RFC 8118."""
        return "application/pdf"


def write_pdf(path: Path, report: Report, rows: Rows, options: PdfReport) -> Summary:
    """Write the report; the same data yields the same bytes. Holds the rows in memory.

    Raises:
        MisconfiguredError: There are more rows than `max_rows`.
        BadPayloadError: As `column_chunks`.
    """
    summary = Summary()
    columns: list[list[Any]] = [[] for _ in report.columns]
    for chunk in summing(column_chunks(rows, report), report, summary):
        if summary.rows > options.max_rows:
            raise MisconfiguredError(
                f"there are more than {options.max_rows:,} rows; raise max_rows, or write CSV",
                system=f"report {report.name}",
                operation="write PDF",
            )
        for column, values in zip(columns, chunk, strict=True):
            column.extend(values)
    shown = [
        [shown_value(value, column, comma=options.decimal_comma) for value in values]
        for column, values in zip(report.columns, columns, strict=True)
    ]
    _Pages(path, report, summary, shown, options).draw()
    return summary


def shown_value(value: Any, column: ReportColumn, *, comma: bool = False) -> str:
    """Format a value for people: grouped thousands, fixed decimals, local time."""
    if value is None:
        return ""
    if column.kind.is_numeric:
        places = 0 if column.kind is Kind.INTEGER else column.decimals
        text = f"{value:,.{places}f}"
        return text.translate(str.maketrans(",.", ".,")) if comma else text
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


class _Pages:
    """Draws from top to bottom and starts a new page when one is full."""

    def __init__(
        self,
        path: Path,
        report: Report,
        summary: Summary,
        shown: list[list[str]],
        options: PdfReport,
    ) -> None:
        self._report, self._summary, self._shown, self._options = report, summary, shown, options
        self._face = Typeface(options.fonts)
        paper = A4 if options.paper == "A4" else LETTER
        self._totals = self._totals_row()
        self._size, natural = self._natural_widths(_SIZES[:1], paper[0] - 2 * _MARGIN)
        if sum(natural) > paper[0] - 2 * _MARGIN:
            paper = landscape(paper)
            self._size, natural = self._natural_widths(_SIZES, paper[0] - 2 * _MARGIN)
        self._width, self._height = paper
        self._inner = self._width - 2 * _MARGIN
        self._widths = _spread(natural, self._inner, [c.kind is Kind.TEXT for c in report.columns])
        self._canvas = Canvas(str(path), pagesize=paper, invariant=1, pageCompression=1)
        self._page = 1
        self._y = self._height - _MARGIN

    def draw(self) -> None:
        """Draw everything and write the file."""
        canvas = self._canvas
        canvas.setTitle(f"{self._report.title}, {self._report.period}")
        canvas.setSubject(self._report.name)
        self._draw_top()
        self._draw_tiles()
        if self._report.chart and self._summary.bars:
            self._draw_chart()
        self._draw_table()
        self._draw_foot()
        canvas.showPage()
        canvas.beginForm("pages", 0, 0, 60, 12)
        self._text(0, 2, str(self._page), 7.5, colour=_GREY)
        canvas.endForm()
        canvas.save()

    def _draw_top(self) -> None:
        for line in self._face.lines(self._report.title, self._inner, 20, bold=True, at_most=2):
            self._y -= 20
            self._text(_MARGIN, self._y, line, 20, bold=True, colour=_INK)
            self._y -= 5
        self._y -= 12
        self._text(_MARGIN, self._y, str(self._report.period), 10.5, colour=_GREY)
        self._y -= 12

    def _draw_tiles(self) -> None:
        tiles = [("Rows", f"{self._summary.rows:,}")]
        if self._options.decimal_comma:
            tiles = [("Rows", f"{self._summary.rows:,}".replace(",", "."))]
        for i, column in enumerate(self._report.columns):
            if column.total:
                tiles.append((column.heading, self._totals[i]))
        tiles = tiles[:5]
        gap, height = 10.0, 44.0
        width = min((self._inner - gap * (len(tiles) - 1)) / len(tiles), 170)
        self._y -= height
        for i, (label, value) in enumerate(tiles):
            x = _MARGIN + i * (width + gap)
            self._canvas.setFillColor(_BAND)
            self._canvas.roundRect(x, self._y, width, height, 4, stroke=0, fill=1)
            name = self._face.lines(label, width - 20, 8, at_most=1)[0]
            self._text(x + 10, self._y + 28, name, 8, colour=_GREY)
            size = 15.0
            while size > 8 and self._face.width(value, size, bold=True) > width - 20:
                size -= 0.5
            self._text(x + 10, self._y + 10, value, size, bold=True, colour=_INK)
        self._y -= 22

    def _draw_chart(self) -> None:
        chart, bars = self._report.chart, self._summary.bars
        assert chart  # noqa: S101 (the caller checked)
        value = self._report.columns[self._report.position(chart.value)]
        label = self._report.columns[self._report.position(chart.label)]
        title = f"{value.heading} by {label.heading}"
        self._text(_MARGIN, self._y, title, 11, bold=True, colour=_INK)
        self._y -= 8
        amounts = [shown_value(n, value, comma=self._options.decimal_comma) for _, n in bars]
        names = [self._face.lines(n or "(none)", 150, 8.5, at_most=1)[0] for n, _ in bars]
        left = _MARGIN + max(self._face.width(name, 8.5) for name in names) + 8
        room = self._width - _MARGIN - left - max(self._face.width(a, 8.5) for a in amounts) - 8
        low = min(0.0, *(float(n) for _, n in bars))
        span = max(0.0, *(float(n) for _, n in bars)) - low or 1.0
        zero = left - low / span * room
        for name, amount, (_, number) in zip(names, amounts, bars, strict=True):
            self._y -= 17
            length = float(number) / span * room
            self._text(left - 8, self._y + 3.5, name, 8.5, right=True)
            self._canvas.setFillColor(_BAR if length >= 0 else _LOSS)
            self._canvas.rect(min(zero, zero + length), self._y, abs(length), 11, stroke=0, fill=1)
            self._text(max(zero, zero + length) + 6, self._y + 2.5, amount, 8.5, colour=_GREY)
        self._canvas.setStrokeColor(_RULE)
        self._canvas.line(zero, self._y - 3, zero, self._y + 17 * len(bars) - 3)
        self._y -= 24

    def _draw_table(self) -> None:
        if not self._summary.rows:
            self._text(_MARGIN, self._y - 12, "No rows in this period.", 10.5, colour=_GREY)
            return
        if self._y - self._row_height(2) * 6 < _MARGIN + _FOOT:
            self._new_page()
        self._draw_head()
        for number, row in enumerate(zip(*self._shown, strict=True)):
            self._draw_row(row, band=number % 2 == 1)
        if self._summary.totals:
            self._draw_row(self._totals, bold=True)

    def _draw_head(self) -> None:
        cells = [
            self._cell(column.heading, width, bold=True)
            for column, width in zip(self._report.columns, self._widths, strict=True)
        ]
        height = self._row_height(max(map(len, cells))) + 3
        self._y -= height
        self._canvas.setFillColor(_INK)
        self._canvas.rect(_MARGIN, self._y, self._inner, height, stroke=0, fill=1)
        self._draw_cells(cells, height, bold=True, colour=white)

    def _draw_row(self, row: Sequence[str], *, bold: bool = False, band: bool = False) -> None:
        cells = [
            [text] if column.kind.is_numeric else self._cell(text, width, bold=bold)
            for column, text, width in zip(self._report.columns, row, self._widths, strict=True)
        ]
        height = self._row_height(max(map(len, cells)))
        if self._y - height < _MARGIN + _FOOT - 20:
            self._new_page()
            self._draw_head()
        self._y -= height
        if band:
            self._canvas.setFillColor(_BAND)
            self._canvas.rect(_MARGIN, self._y, self._inner, height, stroke=0, fill=1)
        if bold:
            self._canvas.setStrokeColor(_INK)
            self._canvas.line(_MARGIN, self._y + height, _MARGIN + self._inner, self._y + height)
        self._draw_cells(cells, height, bold=bold, colour=_INK)

    def _draw_cells(
        self, cells: list[list[str]], height: float, *, bold: bool, colour: Any
    ) -> None:
        x = _MARGIN
        top = self._y + height - self._size - 3
        for column, width, lines in zip(self._report.columns, self._widths, cells, strict=True):
            right = column.kind.is_numeric
            size = self._size
            if right and lines[0]:
                # A wrapped number would be misread, so its font shrinks instead.
                wide = self._face.width(lines[0], size, bold=bold)
                size *= min(1.0, (width - 2 * _PAD) / wide)
            for i, line in enumerate(lines):
                if line:
                    at = x + width - _PAD if right else x + _PAD
                    y = top - i * self._size * 1.3
                    self._text(at, y, line, size, bold=bold, colour=colour, right=right)
            x += width

    def _cell(self, text: str, width: float, *, bold: bool) -> list[str]:
        return self._face.lines(text, width - 2 * _PAD, self._size, bold=bold, at_most=_MAX_LINES)

    def _row_height(self, lines: int) -> float:
        return lines * self._size * 1.3 + 5

    def _draw_foot(self) -> None:
        y = _FOOT - 14
        before = f"Page {self._page} of "
        self._text(_MARGIN, y, before, 7.5, colour=_GREY)
        self._canvas.saveState()
        self._canvas.translate(_MARGIN + self._face.width(before, 7.5), y - 2)
        self._canvas.doForm("pages")  # drawn once the number of pages is known
        self._canvas.restoreState()
        about = f"{self._report.period} · {self._report.title}"
        about = self._face.lines(about, self._inner - 90, 7.5, at_most=1)[0]
        self._text(self._width - _MARGIN, y, about, 7.5, colour=_GREY, right=True)

    def _new_page(self) -> None:
        self._draw_foot()
        self._canvas.showPage()
        self._page += 1
        self._y = self._height - _MARGIN

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        *,
        bold: bool = False,
        colour: Any = _INK,
        right: bool = False,
    ) -> None:
        self._canvas.setFillColor(colour)
        if right:
            x -= self._face.width(text, size, bold=bold)
        for name, part in self._face.runs(text, bold=bold):
            self._canvas.setFont(name, size)
            self._canvas.drawString(x, y, part)
            x += self._canvas.stringWidth(part, name, size)

    def _totals_row(self) -> list[str]:
        row = [
            shown_value(self._summary.totals[c.name], c, comma=self._options.decimal_comma)
            if c.total
            else ""
            for c in self._report.columns
        ]
        return [row[0] or "Total", *row[1:]]

    def _natural_widths(self, sizes: Sequence[float], room: float) -> tuple[float, list[float]]:
        """Return the largest size in which the columns fit the room, and their widths in it."""
        for size in sizes:
            widths = [
                self._natural(i, column, size) for i, column in enumerate(self._report.columns)
            ]
            if sum(widths) <= room:
                break
        return size, widths

    def _natural(self, i: int, column: ReportColumn, size: float) -> float:
        if column.width:
            return column.width * size * 0.55 + 2 * _PAD
        values = self._shown[i]
        # Numbers must never wrap, so the longest one counts; for text a sample is enough.
        sample = sorted(values, key=len)[-20:] if column.kind is not Kind.TEXT else values[:_SAMPLE]
        widest = max((self._face.width(value, size) for value in sample), default=0.0)
        total = self._face.width(self._totals[i], size, bold=True)
        word = max(self._face.width(w, size, bold=True) for w in column.heading.split() or [""])
        return max(min(widest, _WIDEST), total, word, _NARROWEST - 2 * _PAD) + 2 * _PAD + 1


def _spread(natural: Sequence[float], room: float, is_text: Sequence[bool]) -> list[float]:
    """Return widths that fill the room: text columns shrink first, and take what is left."""
    spare = room - sum(natural)
    if spare < 0:
        texts = sum(w for w, text in zip(natural, is_text, strict=True) if text)
        if texts + spare >= _NARROWEST / 2 * sum(is_text):
            share = (texts + spare) / texts
            return [w * share if text else w for w, text in zip(natural, is_text, strict=True)]
    return [width * room / sum(natural) for width in natural]
