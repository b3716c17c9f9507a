"""Runs Prefect's server on SQLite: `python -m deployments.prefect_on_sqlite [--host …] [--port …]`.

It is `prefect server start` with four differences.

Its transactions take turns. Left to themselves, all of them wait for SQLite's one write lock by
trying again after up to 100 ms, whoever is lucky gets it, and one that has read before it writes
fails with "database is locked": a burst of flow runs took four times as long.

Only requests count among the hundred that it serves at once, not websockets. Each flow run holds
two of them for as long as it runs, so with fifty runs no request was ever answered again.

Its garbage is collected by a thread of its own. Left to itself, Python collects wherever it
happens to be, which may be the server's event loop; and a forgotten cursor among the garbage
waits there for its connection, whose thread waits for SQLite's write lock, whose holder waits
for the event loop: all stand still for a minute, until SQLite gives up.

It stops in time. Left to itself, it waits for every client that has begun a request, and for
every transaction, for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from types import FrameType
from weakref import WeakKeyDictionary

import uvicorn
from prefect.server.api import server as prefect_server
from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction
from starlette.types import Receive, Scope, Send

_YOUNG_EVERY_S = 0.5
_OLD_AFTER = 60  # times
_MIDDLE_AFTER = 10
_REQUESTS_STOP_WITHIN_S = 10
_STOPS_WITHIN_S = 15
_STOPS_FOR_CERTAIN_WITHIN_S = 20


def main() -> None:
    """Serve until SIGTERM or SIGINT, with the options of `prefect server start`."""
    collect_in_a_thread()
    take_turns(PREFECT_API_DATABASE_CONNECTION_URL.value())
    prefect_server.RequestLimitMiddleware = RequestLimit  # type: ignore[misc]
    stop_in_time()
    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def take_turns(database_url: str) -> None:
    """Let Prefect's server in this process take turns, if its database is a SQLite file."""
    if database_url.startswith("sqlite"):
        set_database_config(SqliteInTurn(database_url))


class SqliteInTurn(AioSqliteConfiguration):
    """Prefect's SQLite, but its transactions wait for each other in the event loop.

    They come in the order in which they ask, and each holds the write lock from its beginning,
    so it can always write. Reads outside transactions go on as ever.
    """

    def __init__(self, connection_url: str) -> None:
        """Take the URL of the database, as Prefect's setting has it."""
        super().__init__(connection_url)
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]
        self._queues = WeakKeyDictionary()

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        """Wait for this transaction's turn, then begin it; other processes wait by SQLite."""
        if (turn := _TURN.get()) and not turn.is_over:  # who waits here waits for itself
            async with super().begin_transaction(session, with_for_update) as transaction:
                yield transaction
            return
        async with (
            self._next_turn(),
            super().begin_transaction(session, with_for_update=True) as transaction,
        ):
            await session.connection()
            SQLITE_BEGIN_MODE.set(None)  # it has begun; what is read meanwhile shall not
            yield transaction

    @asynccontextmanager
    async def _next_turn(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        async with self._queues.setdefault(loop, asyncio.Lock()):
            turn = _Turn()
            _TURN.set(turn)
            try:
                yield
            finally:
                turn.is_over = True


class _Turn:
    """Seen by all that runs on behalf of a transaction, also by what outlives it."""

    is_over = False


_TURN: ContextVar[_Turn | None] = ContextVar("_TURN", default=None)


class RequestLimit(prefect_server.RequestLimitMiddleware):
    """Prefect's limit of requests at once on SQLite, for requests only."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let what is no request pass."""
        if scope["type"] == "http":
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def stop_in_time() -> None:
    """Let servers of this process wait for clients and database a limited time when they stop."""
    handle_exit, shut_down = uvicorn.Server.handle_exit, uvicorn.Server.shutdown

    def stop_for_certain(self: uvicorn.Server, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            signal.alarm(_STOPS_FOR_CERTAIN_WITHIN_S)  # whatever this process hangs in
        handle_exit(self, sig, frame)

    async def shutdown(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        self.config.timeout_graceful_shutdown = _REQUESTS_STOP_WITHIN_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOPS_WITHIN_S):
                await shut_down(self, sockets)

    uvicorn.Server.handle_exit = stop_for_certain  # type: ignore[method-assign]
    uvicorn.Server.shutdown = shutdown  # type: ignore[method-assign]
    # The server then dies of its signal. Of SIGINT Python would make an exception, after which
    # it waits for the threads that wait for the database.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def collect_in_a_thread() -> threading.Thread:
    """Collect garbage from now on in a thread that nothing waits for."""
    gc.disable()
    thread = threading.Thread(target=_collect, name="garbage", daemon=True)
    thread.start()
    return thread


def _collect() -> None:
    count = 0
    while True:
        time.sleep(_YOUNG_EVERY_S)
        count += 1
        gc.collect(2 if count % _OLD_AFTER == 0 else 1 if count % _MIDDLE_AFTER == 0 else 0)


if __name__ == "__main__":
    main()
