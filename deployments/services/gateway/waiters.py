"""Wakes the callers of this process when their requests have ended, wherever they were handled.

On PostgreSQL the transaction that stores an answer notifies every gateway; on SQLite one query
for all waiting callers together is repeated while there are any. Notices may be lost with their
connection, so the query is repeated there too, only more seldom.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import TupleRow
from psycopg.waiting import wait_async
from sqlalchemy import Engine

from blocks.errors import IntegrationError
from tasks.core.intake.inbox.request_ending import ENDED_CHANNEL
from tasks.core.intake.request_reply.requests import Requests

_LOG = logging.getLogger(__name__)
_AFTER_TROUBLE_S = 1.0

Result = TypeVar("Result")


class Waiters:
    """Who waits in this process, by request.

    Args:
        engine: The state database.
        poll_s: How often is looked while nothing notifies.
        poll_beside_notices_s: How often is looked beside that.
    """

    def __init__(
        self, engine: Engine, *, poll_s: float = 0.02, poll_beside_notices_s: float = 2.0
    ) -> None:
        self._engine = engine
        self._requests = Requests(engine)
        self._poll_s = poll_s
        self._poll_beside_notices_s = poll_beside_notices_s
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._somebody = asyncio.Event()
        self._is_listening = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to look, and to listen."""
        self._tasks = [asyncio.create_task(self._look_on_and_on(), name="look for answers")]
        if self._engine.dialect.name == "postgresql":
            self._tasks.append(asyncio.create_task(self._listen_on_and_on(), name="listen"))

    async def close(self) -> None:
        """Stop; nobody is woken any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def waiting_for(self, request_id: str) -> Iterator[asyncio.Future[None]]:
        """A future that is done when the request ends; one that ended before is not told."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(request_id, []).append(future)
        self._somebody.set()
        try:
            yield future
        finally:
            futures = self._waiting[request_id]
            futures.remove(future)
            if not futures:
                del self._waiting[request_id]
            if not self._waiting:
                self._somebody.clear()

    async def _look_on_and_on(self) -> None:
        while True:
            await self._somebody.wait()
            is_listening = self._is_listening
            await asyncio.sleep(self._poll_beside_notices_s if is_listening else self._poll_s)
            await self._wake_ended()

    async def _wake_ended(self) -> None:
        ids = list(self._waiting)
        if not ids:
            return
        try:
            ended = await asyncio.to_thread(self._requests.ended_among, ids)
        except IntegrationError as exc:
            _LOG.warning("cannot see which requests have ended: %s", exc)
            await asyncio.sleep(_AFTER_TROUBLE_S)
            return
        for request_id in ended:
            self._wake(request_id)

    def _wake(self, request_id: str) -> None:
        for future in self._waiting.get(request_id, ()):
            if not future.done():
                future.set_result(None)

    async def _listen_on_and_on(self) -> None:
        url = self._engine.url.set(drivername="postgresql")
        address = url.render_as_string(hide_password=False)
        while True:
            try:
                await self._listen(address)
            except psycopg.Error as exc:
                _LOG.warning("the database's notices are lost (%s)", type(exc).__name__)
            finally:
                self._is_listening = False
            await asyncio.sleep(_AFTER_TROUBLE_S)

    async def _listen(self, address: str) -> None:
        connection = await _Connection.connect(address, autocommit=True)
        try:
            await connection.execute(f"LISTEN {ENDED_CHANNEL}".encode())
            self._is_listening = True
            await self._wake_ended()
            async for notice in connection.notifies():
                self._wake(notice.payload)
        finally:
            await connection.close()


class _Connection(psycopg.AsyncConnection[TupleRow]):
    """One whose task ends at once when it is cancelled.

    psycopg's own has the server cancel the statement first and waits for that, however long.
    """

    async def wait(
        self, gen: PQGen[Result], interval: float = 0.1, *more: Any, **options: Any
    ) -> Result:
        """Wait for the server, or to be cancelled."""
        return await wait_async(gen, self.pgconn.socket, interval, *more, **options)


Leave = Callable[[], None]
"""Gives a place back."""


class WaitingRoom:
    """Counts who waits, per endpoint and per caller."""

    def __init__(self) -> None:
        self._by_endpoint: defaultdict[str, int] = defaultdict(int)
        self._by_caller: dict[tuple[str, str], int] = {}

    def enter(
        self, endpoint: str, caller: str, *, max_waiting: int, max_per_caller: int
    ) -> Leave | None:
        """Take a place; None if none is left."""
        key = (endpoint, caller)
        if (
            self._by_endpoint[endpoint] >= max_waiting
            or self._by_caller.get(key, 0) >= max_per_caller
        ):
            return None
        self._by_endpoint[endpoint] += 1
        self._by_caller[key] = self._by_caller.get(key, 0) + 1

        def leave() -> None:
            self._by_endpoint[endpoint] -= 1
            self._by_caller[key] -= 1
            if not self._by_caller[key]:
                del self._by_caller[key]

        return leave
