"""Takes deliveries in: all of a call on disk before it returns, each delivery accepted once.

Group commit: while one transaction is being flushed to disk the next calls queue up and then
share a transaction, so durability costs one flush per group and not one per delivery.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine, Table

from blocks.errors import BadPayloadError, TransientError, UpstreamBusyError
from tasks.plain.inbox.inserting import insert_in_postgresql, insert_in_sqlite, sqlite_driver
from tasks.plain.inbox.ordering import promote_heads, take_turns
from tasks.plain.inbox.storage_errors import RolledBackError, storage_errors
from tasks.plain.inbox.tables import DELIVERIES, PAYLOADS, REQUESTS
from tasks.plain.state.database import writing

_BUSY_TIMEOUT_S = 3.0  # senders wait 3 to 10 s: better a 503 in time than a late 202
_LOG_PAGES = 4000  # of 4 KB
_OPERATION = "store"
# Writers that take the same re-sent deliveries in other orders can deadlock on PostgreSQL.
_ROLLED_BACK_ATTEMPTS = 5


@dataclass(slots=True)
class NewDelivery:
    """One event that has been verified and waits to be stored.

    Attributes:
        integration: Whose drain shall take it, e.g. "inventory_updates".
        endpoint: Where it came in; with `dedup_key` it identifies the delivery for ever.
        event: The sender's name for what happened, e.g. "push".
        dedup_key: The sender's delivery id where it is signed, else a digest of the body.
        ordering_key: Deliveries of one integration with the same key are handled one after
            the other in the order of arrival; None for no order.
        headers: JSON `[[name, value], …]`, as received.
        body: Exactly as received. Deliveries of one call with the same body and headers (the
            events of a batch) share one stored copy.
        payload: JSON of the single event; None where the body is the payload.
        content_type: Of the body.
        received_at: Aware UTC instant.
        park_reason: Store it as parked for this reason, so that it is kept, seen and can be
            replayed, but not handled; None for the usual way.
        beside: A table and a row of it to insert with the delivery if that is new.
    """

    integration: str
    endpoint: str
    event: str
    dedup_key: str
    ordering_key: str | None
    headers: bytes
    body: bytes
    payload: bytes | None
    content_type: str
    received_at: datetime
    park_reason: str | None = None
    beside: tuple[Table, Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class StoredDelivery:
    """What became of one `NewDelivery`.

    Attributes:
        id: The same for a duplicate as for the first.
        is_new: False for a duplicate, which had no effect.
    """

    id: str
    is_new: bool


def delivery_id(endpoint: str, dedup_key: str) -> str:
    """The id every acceptance of this delivery has, even after the first one was purged."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{len(endpoint)}:{endpoint}{dedup_key}".encode())
    return digest.hexdigest()


class InboxWriter:
    """Stores deliveries from many concurrent callers of one event loop.

    Example:
        >>> writer = InboxWriter(open_database())
        >>> await writer.start()
        >>> [stored] = await writer.store([delivery])
        >>> await writer.close()

    Args:
        engine: From `tasks.plain.state.database.open_database`.
        max_body_bytes: Larger bodies and payloads are refused.
        max_waiting_bytes: When more than this waits for the disk, callers are told to come
            back later; bounds memory.
        max_group: Calls in one transaction.
        busy_timeout_s: How long to wait for SQLite's write lock.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_body_bytes: int = 25 * 1024 * 1024,
        max_waiting_bytes: int = 128 * 1024 * 1024,
        max_group: int = 500,
        busy_timeout_s: float = _BUSY_TIMEOUT_S,
    ) -> None:
        self._engine = engine
        self._max_body_bytes = max_body_bytes
        self._max_waiting_bytes = max_waiting_bytes
        self._max_group = max_group
        self._busy_timeout_s = busy_timeout_s
        self._waiting: SimpleQueue[_Call | None] = SimpleQueue()  # None is the end
        self._waiting_bytes = 0
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._sqlite: Connection | None = None

    async def start(self) -> None:
        """Begin to take calls.

        Raises:
            TransientError: The database does not answer.
        """
        self._loop = loop = asyncio.get_running_loop()
        connected: asyncio.Future[None] = loop.create_future()
        self._ended = loop.create_future()
        # A daemon: a gateway that dies without closing must not hang on its writer.
        Thread(
            target=self._serve,
            args=(loop, connected, self._ended),
            name="inbox-writer",
            daemon=True,
        ).start()
        await connected

    async def close(self) -> None:
        """Store what was already taken, then stop; later calls are refused."""
        self._closing = True
        if self._ended is not None:
            self._waiting.put(None)
            await self._ended

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
        size = 0
        for delivery in deliveries:
            size += self._checked_size(delivery)
        if self._closing or self._waiting_bytes + size > self._max_waiting_bytes:
            raise UpstreamBusyError(
                "shutting down" if self._closing else "too many deliveries wait for the disk",
                system="inbox",
                operation=_OPERATION,
            )
        if self._loop is None:
            raise RuntimeError("start the writer before storing")
        call = _Call(deliveries, size, self._loop.create_future())
        self._waiting_bytes += size
        self._waiting.put(call)
        return await call.result

    def _serve(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: asyncio.Future[None],
        ended: asyncio.Future[None],
    ) -> None:
        """The writer's thread: takes what waits as soon as the group before is on disk."""
        is_last = False
        try:
            self._connect()
        except Exception as error:  # noqa: BLE001 - raised where the writer is started
            loop.call_soon_threadsafe(_fail, connected, error)
            is_last = True
        else:
            loop.call_soon_threadsafe(connected.set_result, None)
        while not is_last:
            group, is_last = self._next_group()
            if group:
                outcomes = self._commit([call.deliveries for call in group])
                loop.call_soon_threadsafe(self._resolve, group, outcomes)
        self._disconnect()
        loop.call_soon_threadsafe(ended.set_result, None)

    def _next_group(self) -> tuple[list[_Call], bool]:
        group: list[_Call] = []
        call = self._waiting.get()
        while call is not None:
            group.append(call)
            if len(group) == self._max_group or self._waiting.empty():
                return group, False
            call = self._waiting.get()
        return group, True

    def _resolve(self, group: Sequence[_Call], outcomes: Sequence[_Outcome]) -> None:
        for call, outcome in zip(group, outcomes, strict=True):
            self._waiting_bytes -= call.size
            call.resolve(outcome)

    def _commit(self, calls: list[Sequence[NewDelivery]]) -> list[_Outcome]:
        """Write a group; if the database refuses it, each call alone.

        One bad call so never makes the others fail.
        """
        try:
            return self._write(calls)
        except TransientError as error:
            return [copy.copy(error) for _ in calls]  # each caller raises its own
        except Exception as error:  # noqa: BLE001 - handed to the caller, who raises it
            if len(calls) == 1:
                return [error]
            return [outcome for call in calls for outcome in self._commit([call])]

    def _write(self, calls: list[Sequence[NewDelivery]]) -> list[_Outcome]:
        for attempts_left in reversed(range(_ROLLED_BACK_ATTEMPTS)):
            try:
                with storage_errors(_OPERATION), self._transaction() as connection:
                    return [*insert_deliveries(connection, calls)]
            except RolledBackError:
                if not attempts_left:
                    raise
        raise AssertionError  # one of the attempts returned or raised

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        if self._sqlite is None:
            with writing(self._engine) as connection:
                yield connection
            return
        driver = sqlite_driver(self._sqlite)
        driver.execute("BEGIN IMMEDIATE")
        try:
            yield self._sqlite
            driver.execute("COMMIT")
        except BaseException:
            if driver.in_transaction:  # a full disk makes SQLite roll back by itself
                driver.execute("ROLLBACK")
            raise

    def _connect(self) -> None:
        with storage_errors("connect"):
            connection = self._engine.connect()
            if self._engine.dialect.name != "sqlite":
                connection.close()
                return
            # Held open: closing a SQLite file's last connection copies its whole log back.
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(self._busy_timeout_s * 1000)}")
            # A longer log is copied back less often, and a page that changed often only once.
            connection.exec_driver_sql(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            self._sqlite = connection

    def _disconnect(self) -> None:
        if self._sqlite is not None:
            self._sqlite.close()

    def _checked_size(self, delivery: NewDelivery) -> int:
        size = _size(delivery)
        if size > self._max_body_bytes:
            raise BadPayloadError(
                f"{size} bytes; the limit is {self._max_body_bytes}",
                system="inbox",
                operation=_OPERATION,
                record=delivery.event,
            )
        for name, text in (
            ("event", delivery.event),
            ("dedup_key", delivery.dedup_key),
            ("ordering_key", delivery.ordering_key),
            ("content_type", delivery.content_type),
            ("park_reason", delivery.park_reason),
        ):
            if text and not _is_storable(text):
                raise BadPayloadError(
                    f"{name} holds a NUL character or half of a surrogate pair",
                    system="inbox",
                    operation=_OPERATION,
                )
        return size


@dataclass(slots=True)
class _Call:
    deliveries: Sequence[NewDelivery]
    size: int
    result: asyncio.Future[list[StoredDelivery]]

    def resolve(self, outcome: _Outcome) -> None:
        if self.result.done():  # the caller went away
            return
        if isinstance(outcome, Exception):
            self.result.set_exception(outcome)
        else:
            self.result.set_result(outcome)


_Outcome: TypeAlias = "list[StoredDelivery] | Exception"


def _fail(waiting: asyncio.Future[None], error: Exception) -> None:
    if not waiting.done():
        waiting.set_exception(error)


def insert_deliveries(
    connection: Connection, calls: Sequence[Sequence[NewDelivery]]
) -> list[list[StoredDelivery]]:
    """Insert the deliveries of several calls in a transaction that the caller has opened."""
    take_turns(
        connection,
        {each.integration for call in calls for each in call if each.ordering_key is not None},
    )
    insert_rows = insert_in_sqlite if connection.dialect.name == "sqlite" else insert_in_postgresql
    rows = [row for call in calls for row in _delivery_rows(call)]
    new_ids = insert_rows(connection, DELIVERIES, rows, new_by="request_id")
    requests: dict[str, dict[str, Any]] = {}
    payloads: list[dict[str, Any]] = []
    stored: list[StoredDelivery] = []
    remaining = set(new_ids)
    for row, delivery in zip(rows, (each for call in calls for each in call), strict=True):
        # of two equal deliveries in one group the first is the new one
        is_new = row["id"] in remaining
        remaining.discard(row["id"])
        stored.append(StoredDelivery(row["id"], is_new))
        if is_new:
            requests[row["request_id"]] = _request_row(row["request_id"], delivery)
            if delivery.payload is not None:
                payloads.append({"delivery_id": row["id"], "payload": delivery.payload})
            if delivery.beside is not None:
                table, companion = delivery.beside
                insert_rows(connection, table, [companion])
    insert_rows(connection, REQUESTS, list(requests.values()))
    insert_rows(connection, PAYLOADS, payloads)
    promote_heads(
        connection,
        {
            (row["integration"], row["ordering_key"]): row["received_at"]
            for row in rows
            if row["status"] == "queued" and row["id"] in new_ids
        },
    )
    results = iter(stored)
    return [[next(results) for _ in call] for call in calls]


def _delivery_rows(call: Sequence[NewDelivery]) -> Iterator[dict[str, Any]]:
    request_ids: dict[tuple[bytes, bytes], str] = {}
    for delivery in call:
        request_id = request_ids.setdefault((delivery.headers, delivery.body), _request_id())
        if delivery.park_reason is not None:
            status, due_at = "parked", None
        elif delivery.ordering_key is not None:
            status, due_at = "queued", None
        else:
            status, due_at = "received", delivery.received_at
        yield {
            "id": delivery_id(delivery.endpoint, delivery.dedup_key),
            "integration": delivery.integration,
            "endpoint": delivery.endpoint,
            "event": delivery.event,
            "dedup_key": delivery.dedup_key,
            "ordering_key": delivery.ordering_key,
            "request_id": request_id,
            "size_bytes": _size(delivery),
            "status": status,
            "due_at": due_at,
            "attempts": 0,
            "fence": 0,
            "generation": 0,
            "reason": delivery.park_reason,
            "received_at": delivery.received_at,
            "settled_at": delivery.received_at if status == "parked" else None,
        }


def _request_row(request_id: str, delivery: NewDelivery) -> dict[str, Any]:
    return {
        "id": request_id,
        "headers": delivery.headers,
        "body": delivery.body,
        "content_type": delivery.content_type,
        "received_at": delivery.received_at,
    }


def _request_id() -> str:
    # begins with the time, so that new rows go to one end of the index
    return f"{time.time_ns():016x}{os.urandom(8).hex()}"


def _size(delivery: NewDelivery) -> int:
    return len(delivery.body) + len(delivery.payload or b"")


def _is_storable(text: str) -> bool:
    if "\0" in text:
        return False
    if not text.isascii():
        try:
            text.encode()  # far cheaper than looking at each character
        except UnicodeEncodeError:
            return False
    return True
