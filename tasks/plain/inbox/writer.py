"""Takes deliveries in: all of a call on disk before it returns, each delivery accepted once.

Group commit: while one transaction is being flushed to disk the next calls queue up and then
share a transaction, so durability costs one flush per group and not one per delivery.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine, Table, insert
from sqlalchemy.dialects import postgresql

from blocks.errors import BadPayloadError, TransientError, UpstreamBusyError
from tasks.plain.inbox.ordering import promote_heads, take_turns
from tasks.plain.inbox.storage_errors import RolledBackError, storage_errors
from tasks.plain.inbox.tables import DELIVERIES, PAYLOADS, REQUESTS
from tasks.plain.state.database import writing

_BUSY_TIMEOUT_S = 3.0  # senders wait 3 to 10 s: better a 503 in time than a late 202
_OPERATION = "store"
_KNOWN_IN_SQLITE = "SELECT id FROM inbox_deliveries WHERE id IN (SELECT value FROM json_each(?))"
# Writers that take the same re-sent deliveries in other orders can deadlock on PostgreSQL.
_ROLLED_BACK_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
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
        self._waiting: list[_Call] = []
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inbox-writer")
        self._loop_task: asyncio.Task[None] | None = None
        self._sqlite: Connection | None = None

    async def start(self) -> None:
        """Begin to take calls.

        Raises:
            TransientError: The database does not answer.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connect)
        self._loop_task = asyncio.create_task(self._run(), name="inbox-writer")

    async def close(self) -> None:
        """Store what was already taken, then stop; later calls are refused."""
        self._closing = True
        self._wake.set()
        if self._loop_task is not None:
            await self._loop_task
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

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
        for delivery in deliveries:
            self._check(delivery)
        size = sum(map(_size, deliveries))
        if self._closing or self._waiting_bytes + size > self._max_waiting_bytes:
            raise UpstreamBusyError(
                "shutting down" if self._closing else "too many deliveries wait for the disk",
                system="inbox",
                operation=_OPERATION,
            )
        call = _Call(deliveries, size, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._waiting_bytes += size
        self._wake.set()
        return await call.result

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting or not self._closing:
            if not self._waiting:
                await self._wake.wait()
                self._wake.clear()
                continue
            group, self._waiting = (
                self._waiting[: self._max_group],
                self._waiting[self._max_group :],
            )
            outcomes = await loop.run_in_executor(
                self._thread, self._commit, [call.deliveries for call in group]
            )
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
                    return list(_insert_calls(connection, calls))
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
        self._sqlite.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield self._sqlite
            self._sqlite.exec_driver_sql("COMMIT")
        except BaseException:
            # a full disk makes SQLite roll back by itself
            if self._sqlite.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]
                self._sqlite.exec_driver_sql("ROLLBACK")
            raise

    def _connect(self) -> None:
        with storage_errors("connect"):
            connection = self._engine.connect()
            if self._engine.dialect.name != "sqlite":
                connection.close()
                return
            # Held open: closing a SQLite file's last connection copies its whole log back.
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(self._busy_timeout_s * 1000)}")
            self._sqlite = connection

    def _disconnect(self) -> None:
        if self._sqlite is not None:
            self._sqlite.close()

    def _check(self, delivery: NewDelivery) -> None:
        if _size(delivery) > self._max_body_bytes:
            raise BadPayloadError(
                f"{_size(delivery)} bytes; the limit is {self._max_body_bytes}",
                system="inbox",
                operation=_OPERATION,
                record=delivery.event,
            )
        for name in ("event", "dedup_key", "ordering_key", "content_type", "park_reason"):
            if not _is_storable(getattr(delivery, name)):
                raise BadPayloadError(
                    f"{name} holds a NUL character or half of a surrogate pair",
                    system="inbox",
                    operation=_OPERATION,
                )


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


def _insert_calls(
    connection: Connection, calls: Sequence[Sequence[NewDelivery]]
) -> Iterator[list[StoredDelivery]]:
    take_turns(
        connection,
        {each.integration for call in calls for each in call if each.ordering_key is not None},
    )
    rows = [row for call in calls for row in _delivery_rows(call)]
    new_ids = _insert_new(connection, rows)
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
    _insert(connection, REQUESTS, list(requests.values()))
    _insert(connection, PAYLOADS, payloads)
    promote_heads(
        connection,
        {
            (row["integration"], row["ordering_key"]): row["received_at"]
            for row in rows
            if row["status"] == "queued" and row["id"] in new_ids
        },
    )
    results = iter(stored)
    for call in calls:
        yield [next(results) for _ in call]


def _insert_new(connection: Connection, rows: list[dict[str, Any]]) -> set[str]:
    if not rows:
        return set()
    if connection.dialect.name == "postgresql":
        statement = postgresql.insert(DELIVERIES).on_conflict_do_nothing(index_elements=["id"])
        return set(connection.execute(statement.returning(DELIVERIES.c.id), rows).scalars())
    # SQLite has one writer at a time: what is not there now is not there a moment later.
    ids = json.dumps([row["id"] for row in rows])
    known = set(connection.exec_driver_sql(_KNOWN_IN_SQLITE, (ids,)).scalars())
    fresh: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["id"] not in known:
            fresh.setdefault(row["id"], row)
    _insert(connection, DELIVERIES, list(fresh.values()))
    return set(fresh)


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(insert(table), rows)
        return
    # SQLAlchemy's look at every value costs several times what SQLite takes to insert it, and
    # takes that from the event loop, which shares the interpreter.
    marks = ", ".join("?" * len(rows[0]))
    statement = f"INSERT INTO {table.name} ({', '.join(rows[0])}) VALUES ({marks})"  # noqa: S608
    values = [
        tuple([_in_sqlite(each) if type(each) is datetime else each for each in row.values()])
        for row in rows
    ]
    connection.exec_driver_sql(statement, values)


def _in_sqlite(instant: datetime) -> str:
    if instant.tzinfo is None:
        raise ValueError("instants are aware: give datetime.now(UTC), not datetime.now()")
    # as the column type `Instant` writes it
    return instant.astimezone(UTC).isoformat(" ", "microseconds").removesuffix("+00:00")


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


def _is_storable(text: str | None) -> bool:
    if text is None:
        return True
    try:
        text.encode()  # far cheaper than looking at each character
    except UnicodeEncodeError:
        return False
    return "\0" not in text
