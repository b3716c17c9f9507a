"""Reads a file over SFTP at full network speed, with bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import asyncssh

_UNDER_WAY_BYTES = 8 * 1024 * 1024
_MOST_UNDER_WAY = 128
_WINDOW_BYTES = 4 * 1024 * 1024


class OrderedReads:
    """Reads a file in order with many requests in flight; memory holds only those."""

    def __init__(
        self,
        handle: Any,
        size: int,
        block_bytes: int,
        in_time: Callable[[Awaitable[bytes]], Awaitable[bytes]],
    ) -> None:
        """Prepare to read; nothing is requested yet.

        Args:
            handle: An `asyncssh.SFTPClientFile`, opened with `block_size=0`.
            size: How many bytes to read.
            block_bytes: How many bytes to request at once.
            in_time: Waits for a response within a timeout.
        """
        self.count = 0
        self._handle = handle
        self._ranges = (
            (start, min(block_bytes, size - start)) for start in range(0, size, block_bytes)
        )
        self._most_under_way = min(_UNDER_WAY_BYTES // block_bytes, _MOST_UNDER_WAY)
        self._in_time = in_time
        self._under_way: deque[asyncio.Task[bytes]] = deque()
        self._one_at_a_time = asyncio.Lock()

    async def window(self) -> list[bytes]:
        """Return the next blocks of the file; none at its end."""
        async with self._one_at_a_time:
            blocks: list[bytes] = []
            count = 0
            self._start_more()
            while count < _WINDOW_BYTES and self._under_way:
                blocks.append(await self._in_time(self._under_way.popleft()))
                count += len(blocks[-1])
                self._start_more()
            self.count += count
            return blocks

    async def close(self) -> None:
        """Cancel the requests in flight and close the file."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        with suppress(asyncssh.Error, OSError):
            await self._in_time(self._handle.close())

    def _start_more(self) -> None:
        while len(self._under_way) < self._most_under_way:
            span = next(self._ranges, None)
            if span is None:
                return
            self._under_way.append(asyncio.create_task(self._read(*span)))

    async def _read(self, start: int, length: int) -> bytes:
        block: bytes = await self._handle.read(length, start)
        while len(block) < length:  # a server may return less than was requested
            more: bytes = await self._handle.read(length - len(block), start + len(block))
            if not more:
                break
            block += more
        return block
