"""Draws text of any script in a PDF, without fonts installed on the machine.

Noto Sans (its digits are all of one width, so columns of numbers line up) writes Latin, Greek and
Cyrillic; what it lacks comes from the fonts the caller adds, from FiraGO (Arabic, Hebrew,
Georgian, Thai) or, for Chinese, Japanese and Korean, from fonts that PDF readers bring
themselves. Both families come with the package pymupdf-fonts under the SIL Open Font License.
Arabic is joined and right-to-left text put in order; Indic scripts are drawn without reordering.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from itertools import groupby
from pathlib import Path

import pymupdf_fonts  # type: ignore[import-untyped]
from arabic_reshaper import ArabicReshaper  # type: ignore[import-untyped]
from bidi.algorithm import get_display  # type: ignore[import-untyped]
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFError, TTFont

from blocks.errors import MisconfiguredError

Run = tuple[str, str]  # font name, text
_REGULAR = ("notos", "figo")
_BOLD = ("notosbo", "figbo")
_KANA, _HANGUL, _HAN = "HeiseiKakuGo-W5", "HYGothic-Medium", "STSong-Light"
_ELLIPSIS = "…"
# Fonts draw a letter that stands alone from its plain code, not from its presentation form.
_RESHAPER = ArabicReshaper({"use_unshaped_instead_of_isolated": True})


class Typeface:
    """A regular and a bold face, each a chain of fonts; the first that has a glyph draws it."""

    def __init__(self, fonts: Sequence[Path] = ()) -> None:
        """Register the fonts.

        Args:
            fonts: TrueType files for scripts the built-in ones lack, tried before FiraGO.

        Raises:
            MisconfiguredError: A file is missing or not a TrueType font.
        """
        added = [_font_file(path) for path in fonts]
        self._chains = {
            bold: [_font(names[0]), *added, _font(names[1])]
            for bold, names in ((False, _REGULAR), (True, _BOLD))
        }

    def runs(self, text: str, *, bold: bool = False) -> list[Run]:
        """Split one line into runs of one font each, in drawing order."""
        chain = self._chains[bold]
        if text.isascii() and text.isprintable():
            return [(chain[0].fontName, text)]
        text = "".join(char if char.isprintable() else " " for char in text)
        if any(unicodedata.bidirectional(char) in {"R", "AL", "AN"} for char in text):
            text = get_display(_RESHAPER.reshape(text))
        names: list[str] = []
        for char in text:
            names.append(_font_for(char, chain, names[-1] if names else chain[0].fontName))
        return [
            (name, "".join(char for _, char in stretch))
            for name, stretch in groupby(zip(names, text, strict=True), key=lambda pair: pair[0])
        ]

    def width(self, text: str, size: float, *, bold: bool = False) -> float:
        """Return the width of one line, in points."""
        width: float = sum(
            pdfmetrics.stringWidth(part, name, size) for name, part in self.runs(text, bold=bold)
        )
        return width

    def lines(
        self, text: str, width: float, size: float, *, bold: bool = False, at_most: int = 3
    ) -> list[str]:
        """Break text into lines no wider than `width`; the rest becomes "…"."""
        lines: list[str] = []
        rest = text
        while self.width(rest, size, bold=bold) > width:
            last = len(lines) == at_most - 1
            room = width - (self.width(_ELLIPSIS, size, bold=bold) if last else 0)
            cut = self._fitting(rest, room, size, bold=bold)
            if last:
                return [*lines, rest[:cut].rstrip() + _ELLIPSIS]
            blank = rest.rfind(" ", 0, cut + 1)
            cut = blank if blank > 0 else cut
            lines.append(rest[:cut].rstrip())
            rest = rest[cut:].lstrip()
        return [*lines, rest]

    def _fitting(self, text: str, width: float, size: float, *, bold: bool) -> int:
        """Return how many leading characters fit, at least one."""
        low, high = 1, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if self.width(text[:middle], size, bold=bold) <= width:
                low = middle
            else:
                high = middle - 1
        return low


def _font_for(char: str, chain: Sequence[TTFont], current: str) -> str:
    code = ord(char)
    able = [font.fontName for font in chain if code in font.face.charToGlyph]
    # Marks and blanks stay with the text they stand in.
    if current in able and (char == " " or unicodedata.combining(char)):
        return current
    if able:
        return str(able[0])
    reader_font = _reader_font(code)
    return reader_font or str(chain[0].fontName)


def _reader_font(code: int) -> str | None:
    if 0x3040 <= code <= 0x30FF or 0xFF61 <= code <= 0xFF9F:
        return _cid_font(_KANA)
    if 0xAC00 <= code <= 0xD7A3 or 0x1100 <= code <= 0x11FF:
        return _cid_font(_HANGUL)
    if 0x2E80 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0xFF00 <= code <= 0xFFEF:
        return _cid_font(_HAN)
    return None


@lru_cache
def _cid_font(name: str) -> str:
    pdfmetrics.registerFont(UnicodeCIDFont(name))
    return name


@lru_cache
def _font(code: str) -> TTFont:
    font = TTFont(f"report-{code}", BytesIO(pymupdf_fonts.myfont(code)))
    pdfmetrics.registerFont(font)
    return font


@lru_cache
def _font_file(path: Path) -> TTFont:
    try:
        font = TTFont(f"report-{path.stem}", str(path))
    except (TTFError, OSError) as exc:
        raise MisconfiguredError(
            "is no TrueType font that can be embedded; give the path of a .ttf file",
            system="report",
            operation="load font",
            record=path.name,
        ) from exc
    pdfmetrics.registerFont(font)
    return font
