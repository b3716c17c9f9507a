"""Text out of bytes that arrive in pieces of any size."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from tasks.core.formats.records.source import Source
from tasks.core.formats.records.text import decoded_lines

SOURCE = Source("folder", "text.csv")


class Dripping:
    """A stream that gives the bytes in pieces of the sizes wanted, as slow ones do."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        self._stream = io.BytesIO(content)
        self._sizes = iter(sizes)

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(next(self._sizes, size))


@given(
    text=st.text('ab,"é€😀\r\n\x0b\x85\u2028', max_size=30),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    sizes=st.lists(st.integers(1, 5), max_size=40),
)
def test_pieces_make_no_difference(text, encoding, sizes):
    """Lines are the same however the bytes arrive, byte-order mark and CR LF included."""
    stream = Dripping(text.encode(encoding), sizes)

    lines = [line for lines in decoded_lines(stream, "auto", SOURCE) for line in lines]

    assert lines == list(io.StringIO(text, newline=""))
