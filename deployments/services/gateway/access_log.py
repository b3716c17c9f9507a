"""One JSON line a request: who was answered what and why; never a secret, a body or a query."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, BinaryIO

import orjson

_FLUSH_INTERVAL_S = 0.2
_MAX_PENDING = 1000


class AccessLog:
    """Collects lines and writes them a few times a second.

    Writing each at once would cost as much as the request. What a crash loses are lines of the
    log, never deliveries.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._pending: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(self, at: datetime, **fields: Any) -> None:
        """Add a line; fields without a value are left out."""
        line = {"at": at, **{name: value for name, value in fields.items() if value is not None}}
        self._pending.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        if len(self._pending) >= _MAX_PENDING:
            self.flush()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_FLUSH_INTERVAL_S, self.flush)

    def flush(self) -> None:
        """Write what was collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, []
        self._stream.write(b"".join(pending))
        self._stream.flush()
