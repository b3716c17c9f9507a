"""Commits groups of calls: each call all or none, each delivery accepted once."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine

from blocks.errors import BadPayloadError, TransientError
from tasks.core.intake.inbox.bulk_insert import (
    insert_in_postgresql,
    insert_in_sqlite,
    sqlite_driver,
)
from tasks.core.intake.inbox.new_delivery import NewDelivery, StoredDelivery, delivery_id
from tasks.core.intake.inbox.ordering import promote_heads, take_turns
from tasks.core.intake.inbox.storage_errors import RolledBackError, storage_errors
from tasks.core.intake.inbox.tables import DELIVERIES, PAYLOADS, REQUESTS
from tasks.core.state.database import writing

_OPERATION = "store"
# Writers that take the same re-sent deliveries in other orders can deadlock on PostgreSQL.
_ROLLED_BACK_ATTEMPTS = 5
_TEXTS = (
    "event",
    "dedup_key",
    "ordering_key",
    "content_type",
    "dead_letter_reason",
    "ignore_reason",
)

CommitResult: TypeAlias = list[StoredDelivery] | Exception
"""What becomes of one call: a result for each delivery, or why none is stored."""


class Committer:
    """Writes groups of calls into the inbox, one after the other.

    Args:
        engine: From `tasks.core.state.database.open_database`.
        busy_timeout_s: How long to wait for SQLite's write lock.
    """

    def __init__(self, engine: Engine, *, busy_timeout_s: float) -> None:
        self._engine = engine
        self._busy_timeout_s = busy_timeout_s
        self._sqlite: Connection | None = None

    def connect(self) -> None:
        """See whether the database is there.

        Raises:
            TransientError: It does not answer.
        """
        with storage_errors("connect"):
            connection = self._engine.connect()
            if self._engine.dialect.name != "sqlite":
                connection.close()
                return
            # Held open: closing a SQLite file's last connection copies its whole log back.
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(self._busy_timeout_s * 1000)}")
            self._sqlite = connection

    def close(self) -> None:
        """Give the connection back."""
        if self._sqlite is not None:
            self._sqlite.close()

    def commit(self, calls: Sequence[Sequence[NewDelivery]]) -> list[CommitResult]:
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
            return [outcome for call in calls for outcome in self.commit([call])]

    def _write(self, calls: Sequence[Sequence[NewDelivery]]) -> list[CommitResult]:
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
    for delivery in map(_checked, call):
        request_id = request_ids.setdefault((delivery.headers, delivery.body), _request_id())
        status = delivery.status
        yield {
            "id": delivery_id(delivery.endpoint, delivery.dedup_key),
            "integration": delivery.integration,
            "endpoint": delivery.endpoint,
            "event": delivery.event,
            "dedup_key": delivery.dedup_key,
            "ordering_key": delivery.ordering_key,
            "request_id": request_id,
            "size_bytes": delivery.size_bytes,
            "status": status,
            "due_at": delivery.received_at if status == "received" else None,
            "attempts": 0,
            "lease_token": 0,
            "generation": 0,
            "reason": delivery.dead_letter_reason or delivery.ignore_reason,
            "received_at": delivery.received_at,
            "settled_at": delivery.received_at if status in ("dead_letter", "ignored") else None,
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


def _checked(delivery: NewDelivery) -> NewDelivery:
    for name in _TEXTS:
        text = getattr(delivery, name)
        if text and not _is_storable(text):
            raise BadPayloadError(
                f"{name} holds a NUL character or half of a surrogate pair",
                system="inbox",
                operation=_OPERATION,
            )
    return delivery


def _is_storable(text: str) -> bool:
    if "\0" in text:
        return False
    if not text.isascii():
        try:
            text.encode()  # far cheaper than looking at each character
        except UnicodeEncodeError:
            return False
    return True
