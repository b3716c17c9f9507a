"""Takes deliveries in: all of a call on disk before it returns, each delivery accepted once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any, cast

from sqlalchemy import Engine

from blocks.errors import BadPayloadError, IntegrationError, UnreachableError, UpstreamBusyError
from tasks.core.intake.inbox import committer_ipc
from tasks.core.intake.inbox.committer import CommitResult, Committer
from tasks.core.intake.inbox.new_delivery import NewDelivery, StoredDelivery

_LOG = logging.getLogger(__name__)
_BUSY_TIMEOUT_S = 3.0  # senders wait 3 to 10 s: better a 503 in time than a late 202
_START_TIMEOUT_S = 20.0  # the process takes seconds to import, the connection up to 10 s
_CLOSE_TIMEOUT_S = 5.0
_RESTART_EVERY_S = 1.0
_CALLS_AT_ONCE = 16
_OPERATION = "store"
_SILENT = "the database does not answer"


class InboxWriter:
    """Stores deliveries from many concurrent callers of one event loop.

    Example:
        >>> writer = InboxWriter(open_database())
        >>> await writer.start()
        >>> [stored] = await writer.store([delivery])
        >>> await writer.close()

    Args:
        engine: From `tasks.core.state.database.open_database`.
        max_body_bytes: Larger bodies and payloads are refused.
        max_waiting_bytes: When more than this waits for the disk, callers are told to come
            back later; bounds memory. A call that is larger by itself is taken when nothing waits.
        busy_timeout_s: How long to wait for SQLite's write lock.
        start_timeout_s: How long the database may take to answer at the start.
        in_own_process: Commit in a process instead of a thread: under load more than twice as
            fast, since the event loop then shares its processor and interpreter with nobody.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_body_bytes: int = 25 * 1024 * 1024,
        max_waiting_bytes: int = 128 * 1024 * 1024,
        busy_timeout_s: float = _BUSY_TIMEOUT_S,
        start_timeout_s: float = _START_TIMEOUT_S,
        in_own_process: bool = False,
    ) -> None:
        self._engine = engine
        self._max_body_bytes = max_body_bytes
        self._max_waiting_bytes = max_waiting_bytes
        self._busy_timeout_s = busy_timeout_s
        self._start_timeout_s = start_timeout_s
        self._in_own_process = in_own_process
        self._waiting_bytes = 0
        self._unsent: list[_Call] = []
        self._in_flight: deque[_Call] = deque()
        self._closing = False
        self._line: _Line | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._restarting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to take calls.

        Raises:
            TransientError: The database does not answer.
        """
        line = _Line(asyncio.get_running_loop(), self._answered)
        try:
            await self._open(line)
            await line.has_database(self._start_timeout_s)
        except BaseException:
            self._hang_up(line)
            raise
        self._line = line
        line.ended.add_done_callback(self._lost)

    async def _open(self, line: _Line) -> None:
        loop = asyncio.get_running_loop()
        try:
            ours, theirs = socket.socketpair()
            try:
                with theirs:
                    await self._start_other_end(theirs)
                await loop.create_unix_connection(lambda: line, sock=ours)
            except BaseException:
                ours.close()  # and so the other end, if it was started, leaves
                raise
        except (OSError, RuntimeError) as exc:  # RuntimeError: no thread is to be had
            raise _unreachable(f"what writes to the database cannot be started ({exc})") from exc
        if self._in_own_process:
            url = self._engine.url.render_as_string(hide_password=False)
            line.send((url, self._busy_timeout_s))

    async def _start_other_end(self, theirs: socket.socket) -> None:
        if self._in_own_process:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", committer_ipc.__name__), stdin=theirs.fileno()
            )
            return
        committer = Committer(self._engine, busy_timeout_s=self._busy_timeout_s)
        # A daemon: a gateway that dies without closing must not hang on its writer.
        Thread(
            target=committer_ipc.serve,
            args=(theirs.dup(), committer),
            name="inbox-writer",
            daemon=True,
        ).start()

    async def close(self, *, timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        """Store what was already taken, then stop; later calls are refused.

        Args:
            timeout_s: How long the database may take. Callers that it has not answered by then
                are told that it does not; what they sent may be stored or not.
        """
        self._closing = True
        try:
            if self._restarting is not None:
                self._restarting.cancel()
                await asyncio.wait({self._restarting})
            if self._line is not None:
                line = self._line
                self._send()
                if not self._in_flight:
                    line.close()
                await asyncio.wait({line.ended}, timeout=timeout_s)
                if not line.ended.done():
                    count = len(self._in_flight)
                    _LOG.warning("%s: %s calls are given up", _SILENT, count)
        finally:
            self._hang_up(self._line)
        if self._process is not None:
            await self._process.wait()

    def _hang_up(self, line: _Line | None) -> None:
        """Leave the other end, whatever it waits for."""
        if line is not None:
            line.abort()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def store(self, deliveries: Sequence[NewDelivery]) -> list[StoredDelivery]:
        """Store all of them or none, and return once they are on disk.

        A caller that is cancelled meanwhile does not undo its call.

        Returns:
            One result per delivery, in the same order.

        Raises:
            UpstreamBusyError: The database is locked or full, or too much waits already.
            UnreachableError: The database does not answer.
            BadPayloadError: A body is too large, or a name holds what no database stores.
        """
        size = self._checked_size(deliveries)
        if self._closing:
            raise _busy("shutting down")
        if self._line is None:
            raise _busy("the database is not connected yet")
        if self._waiting_bytes and self._waiting_bytes + size > self._max_waiting_bytes:
            raise _busy("too many deliveries wait for the disk")
        loop = asyncio.get_running_loop()
        call = _Call(committer_ipc.packed(deliveries), size, loop.create_future())
        self._waiting_bytes += size
        self._unsent.append(call)
        if len(self._unsent) == _CALLS_AT_ONCE:
            self._send()
        elif not self._in_flight and len(self._unsent) == 1:
            loop.call_soon(self._send)  # what comes until the loop's next round goes with it
        return await call.result

    def _send(self) -> None:
        """Send what has gathered: enough to be worth it, or as much as there is for an idle one.

        Some always waits at the other end, so that both ends work at the same time.
        """
        if self._unsent and self._line is not None:
            self._in_flight += self._unsent
            self._line.send([call.packed for call in self._unsent])
            self._unsent = []

    def _answered(self, outcomes: Sequence[CommitResult]) -> None:
        for outcome in outcomes:
            call = self._in_flight.popleft()
            self._waiting_bytes -= call.size
            call.resolve(outcome)
        if not self._in_flight:
            self._send()
            if self._closing and not self._in_flight and self._line is not None:
                self._line.close()

    def _lost(self, _ended: asyncio.Future[None]) -> None:
        """The other end is gone: whether its last calls were committed nobody knows."""
        self._line = None
        why = _SILENT if self._closing else "the process that writes was lost"
        for call in (*self._in_flight, *self._unsent):
            call.resolve(_unreachable(why))
        self._unsent = []
        self._in_flight.clear()
        self._waiting_bytes = 0
        if not self._closing:
            _LOG.error("the process that writes was lost; it is started anew")
            self._restarting = asyncio.create_task(self._restart(), name="restart the writer")

    async def _restart(self) -> None:
        while True:
            if self._process is not None:
                await self._process.wait()
            try:
                return await self.start()
            except IntegrationError as exc:
                _LOG.warning("nothing can be stored yet: %s", exc)
            await asyncio.sleep(_RESTART_EVERY_S)

    def _checked_size(self, deliveries: Sequence[NewDelivery]) -> int:
        """What a call holds in memory; the events of a batch share their body and headers."""
        size = 0
        body = headers = None
        for each in deliveries:
            if each.body is not body:
                body = each.body
                size += self._within_limit(len(body), each)
            if each.headers is not headers:
                headers = each.headers
                size += len(headers)
            if each.payload is not None:
                size += self._within_limit(len(each.payload), each)
        return size

    def _within_limit(self, size: int, delivery: NewDelivery) -> int:
        if size > self._max_body_bytes:
            raise BadPayloadError(
                f"{size} bytes; the limit is {self._max_body_bytes}",
                system="inbox",
                operation=_OPERATION,
                record=delivery.event,
            )
        return size


class _Line(asyncio.Protocol):
    """Our end of the line to the committer.

    Attributes:
        connected: Done when the other end has a database, or says why not.
        ended: Done when there is no other end any more.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, received: Callable[[Sequence[CommitResult]], None]
    ) -> None:
        self.connected: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._received = received
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for content in committer_ipc.take_messages(self._buffer):
            if self.connected.done():
                self._received(content)
            elif content is None:
                self.connected.set_result(None)
            else:
                self.connected.set_exception(content)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.connected.done():
            self.connected.set_exception(_busy("the process that writes ended at once"))
        self.ended.set_result(None)

    async def has_database(self, timeout_s: float) -> None:
        """Return when the other end has one.

        Raises:
            IntegrationError: It has none.
        """
        await asyncio.wait({self.connected}, timeout=timeout_s)
        if not self.connected.done():
            raise _unreachable(_SILENT)
        self.connected.result()

    def send(self, content: Any) -> None:
        assert self._transport is not None  # noqa: S101 - connected
        self._transport.write(committer_ipc.message(content))

    def abort(self) -> None:
        """Give up; nobody waits for the other end any more."""
        self.connected.cancel()
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Say that nothing more comes; the other end finishes and leaves."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()


@dataclass(slots=True)
class _Call:
    packed: list[Any]
    size: int
    result: asyncio.Future[list[StoredDelivery]]

    def resolve(self, outcome: CommitResult) -> None:
        if self.result.done():  # the caller went away
            return
        if isinstance(outcome, Exception):
            self.result.set_exception(outcome)
        else:
            self.result.set_result(outcome)


def _busy(why: str) -> UpstreamBusyError:
    return UpstreamBusyError(why, system="inbox", operation=_OPERATION)


def _unreachable(why: str) -> UnreachableError:
    return UnreachableError(why, system="inbox", operation=_OPERATION)
