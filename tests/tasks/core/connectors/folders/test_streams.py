"""Streams are bounded in memory, ordered, and checked at their end."""

from __future__ import annotations

import contextlib
import io
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import PermanentError
from tasks.core.connectors.folders.streams import (
    ExactContent,
    ReadAhead,
    Watched,
    buffered,
    read_fully,
)


def done(window):
    future = Future()
    future.set_result(window)
    return future


def exact(content, size):
    return ExactContent(io.BytesIO(content), size, system="s", operation="put", record="a")


@given(st.lists(st.lists(st.binary(max_size=5), min_size=1), max_size=5), st.integers(1, 3))
def test_windows_are_read_in_order(windows, ahead):
    """Whatever the sizes of windows and blocks, even 0, the bytes come out as they went in."""
    with buffered(ReadAhead((done(window) for window in windows), ahead=ahead)) as stream:
        content = stream.read()
    assert content == b"".join(block for window in windows for block in window)


def test_no_more_windows_are_started_than_agreed():
    """With two ahead, reading the first window has started three."""
    started = []

    def windows():
        for number in range(10):
            started.append(number)
            yield done([b"x" * 10])

    with ReadAhead(windows(), ahead=2) as stream:
        assert started == [0, 1]
        assert stream.read(3) == b"xxx"
        assert started == [0, 1, 2]
        assert stream.read(7) == b"x" * 7
        assert started == [0, 1, 2]
        assert stream.read(1) == b"x"
        assert started == [0, 1, 2, 3]


def test_closing_gives_up_what_is_under_way():
    """Windows that did not arrive yet are cancelled."""
    futures = [Future(), Future()]
    with ReadAhead(iter(futures), ahead=2):
        pass
    assert all(future.cancelled() for future in futures)


def test_the_end_is_checked_once():
    """Readers often read past the end more than once."""
    checks = []
    source = io.BytesIO(b"abc")
    watched = Watched(source, errors=contextlib.nullcontext, at_end=lambda: checks.append(1))
    with buffered(watched) as stream:
        assert stream.read(2) == b"ab"
        assert checks == []
        assert stream.read() + stream.read() + stream.read() == b"c"
        assert checks == [1]
    assert source.closed


@given(st.binary(max_size=20), st.integers(0, 25), st.integers(1, 9))
def test_content_of_the_announced_size_only(content, size, step):
    """Reading to the end works exactly when the size is the announced one."""
    reader = exact(content, size)
    pieces = []

    def read_all():
        while piece := reader.read(step):
            pieces.append(piece)
        reader.check_ended()

    if len(content) == size:
        read_all()
        assert b"".join(pieces) == content
    else:
        with pytest.raises(PermanentError, match=f"announced {size} bytes"):
            read_all()


def test_reading_fully_does_not_stop_at_a_short_read():
    """Sources may give less than was asked for."""

    class Trickling(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 2))

    content = ExactContent(Trickling(b"abcdefg"), 7, system="s", operation="put", record="a")
    assert read_fully(content, 5) == b"abcde"
    assert read_fully(content, 5) == b"fg"
