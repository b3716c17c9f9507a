"""Text of any script in a PDF."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import MisconfiguredError
from tasks.core.formats.reports.pdf_text import Typeface

FACE = Typeface()


@pytest.mark.parametrize(
    ("text", "fonts"),
    [
        ("plain", ["report-notos"]),
        ("Žižka Ολυμπιακή Торговый", ["report-notos"]),
        ("ქართული", ["report-figo"]),
        ("ไทย", ["report-figo"]),
        ("חברה", ["report-figo"]),
        ("شركة", ["report-figo"]),
        ("Co 株式会社", ["report-notos", "STSong-Light"]),
        ("かな", ["HeiseiKakuGo-W5"]),
        ("한국", ["HYGothic-Medium"]),
    ],
)
def test_each_script_finds_its_font(text, fonts):
    """Every letter is drawn by a font that has it, in as few stretches as there are fonts."""
    assert [font for font, _ in FACE.runs(text)] == fonts


def test_right_to_left_text_is_put_in_order():
    """Hebrew is mirrored around its numbers, Arabic letters take their joined forms."""
    assert "".join(part for _, part in FACE.runs("אב 24")) == "24 בא"
    joined = "".join(part for _, part in FACE.runs("بيع"))
    assert joined == "\ufeca\ufef4\ufe91"


@given(
    text=st.text(st.characters(codec="utf-8"), max_size=60),
    width=st.floats(10, 300),
    at_most=st.integers(1, 3),
)
def test_lines_fit_or_hold_one_character(text, width, at_most):
    """No line sticks out unless a single character does; cut text says so by an ellipsis."""
    lines = FACE.lines(text, width, 8.5, at_most=at_most)
    assert 1 <= len(lines) <= at_most
    for line in lines:
        assert FACE.width(line, 8.5) <= width + 1e-6 or len(line.rstrip("…")) <= 1
    if not lines[-1].endswith("…"):
        assert "".join("".join(lines).split()) == "".join(text.split())


def test_a_file_that_is_no_font_is_named(tmp_path):
    """A wrong path in the options is an error that says which."""
    (tmp_path / "x.ttf").write_bytes(b"no font")
    with pytest.raises(MisconfiguredError, match=r"x\.ttf"):
        Typeface([tmp_path / "x.ttf"])
    with pytest.raises(MisconfiguredError, match=r"missing\.ttf"):
        Typeface([tmp_path / "missing.ttf"])
