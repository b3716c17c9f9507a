"""Streams for reading and writing files: bounded in memory, checked at their end."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO

from blocks.errors import PermanentError
from tasks.core.threads import check_cancelled, result_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER_BYTES = 128 * 1024


def buffered(raw: io.RawIOBase) -> io.BufferedReader:
    """Return a stream that callers read by line or in chunks."""
    return io.BufferedReader(raw, _BUFFER_BYTES)


class Watched(io.RawIOBase):
    """Passes reads on, maps their errors, and checks the content before it signals the end."""

    def __init__(
        self,
        source: io.RawIOBase,
        *,
        errors: Callable[[], AbstractContextManager[None]],
        seen: Callable[[memoryview], None] = lambda _: None,
        at_end: Callable[[], None],
    ) -> None:
        """Wrap a source; closing this closes the source.

        Args:
            source: Needs `readinto` and `close`.
            errors: Maps the source's errors around each read.
            seen: Called with every piece that was read.
            at_end: Called once; raises if what was read is not the expected file.
        """
        super().__init__()
        self._source = source
        self._errors = errors
        self._seen = seen
        self._at_end = at_end
        self._ended = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read more, or check the end."""
        target = memoryview(buffer).cast("B")
        with self._errors():
            count = self._source.readinto(target) or 0
        if count:
            self._seen(target[:count])
        elif target and not self._ended:
            self._ended = True
            with self._errors():
                self._at_end()
        return count

    def close(self) -> None:
        """Close the source too."""
        self._source.close()
        super().close()


class ReadAhead(io.RawIOBase):
    """Reads windows in order, fetching the next ones while one is read.

    Memory holds at most `ahead` + 1 windows.
    """

    def __init__(self, windows: Iterator[Future[list[bytes]]], *, ahead: int) -> None:
        """Start the first windows.

        Args:
            windows: Starts the next window, a few blocks of the file, at each step. An empty
                window or the end of the iterator is the end of the file.
            ahead: How many windows are in flight while one is read, at least 1.
        """
        super().__init__()
        self._windows = windows
        self._under_way: deque[Future[list[bytes]]] = deque()
        self._ahead = ahead
        self._blocks: deque[bytes] = deque()
        self._block = memoryview(b"")
        self._start_more()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill from the current window, or wait for the next one."""
        while not self._block:
            if not self._blocks and self._under_way:
                arrived = self._under_way.popleft()
                self._start_more()
                blocks: list[bytes] = result_of(arrived)
                self._blocks.extend(blocks)
            if not self._blocks:
                return 0
            self._block = memoryview(self._blocks.popleft())
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._block))
        target[:count] = self._block[:count]
        self._block = self._block[count:]
        return count

    def close(self) -> None:
        """Cancel the windows in flight."""
        for future in self._under_way:
            future.cancel()
        self._under_way.clear()
        self._blocks.clear()
        self._block = memoryview(b"")
        super().close()

    def _start_more(self) -> None:
        while len(self._under_way) < self._ahead:
            future = next(self._windows, None)
            if future is None:
                return
            self._under_way.append(future)


class ExactContent:
    """Passes reads on and fails if there is more or less content than announced."""

    def __init__(
        self, content: BinaryIO, size: int, *, system: str, operation: str, record: str
    ) -> None:
        self._content = content
        self._size = size
        self._count = 0
        self._where = {"system": system, "operation": operation, "record": record}

    def read(self, size: int = -1) -> bytes:
        """Read more.

        Raises:
            PermanentError: The content ended early, or exceeds its announced size.
            asyncio.CancelledError: The run is cancelled.
        """
        check_cancelled()
        data = self._content.read(size)
        self._count += len(data)
        if self._count > self._size or (not data and size != 0):
            self.check_ended()
        return data

    def check_ended(self) -> None:
        """Fail unless exactly the announced bytes were read."""
        if self._count != self._size:
            relation = "goes on past" if self._count > self._size else "ended before"
            raise PermanentError(
                f"the content {relation} its announced {self._size:,} bytes, at "
                f"{self._count:,}: was it still being written?",
                **self._where,
            )


def read_fully(content: ExactContent | BinaryIO, count: int) -> bytes:
    """Read up to `count` bytes, fewer only at the end."""
    pieces: list[bytes] = []
    while count > 0 and (piece := content.read(count)):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)
