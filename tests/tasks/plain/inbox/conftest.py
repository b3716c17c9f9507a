"""An inbox on each database, empty for each test, with a clock that the test turns."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from tasks.plain.inbox.drains import Drains
from tasks.plain.inbox.operations import InboxOperations
from tasks.plain.inbox.rows import Claimer
from tasks.plain.inbox.store import Inbox
from tasks.plain.inbox.writer import InboxWriter, NewDelivery, StoredDelivery
from tasks.plain.state.database import open_database

POSTGRESQL = "postgresql+psycopg://postgres@127.0.0.1:5432/{}"


@dataclass
class Clock:
    """A clock that stands still until it is turned."""

    now: datetime = field(default_factory=lambda: datetime(2026, 3, 1, 12, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Setup:
    """An inbox with all its sides."""

    engine: Engine
    clock: Clock
    inbox: Inbox
    drains: Drains
    operations: InboxOperations
    claimer: Claimer

    async def store(self, *deliveries: NewDelivery) -> list[StoredDelivery]:
        """Store them in one call."""
        writer = InboxWriter(self.engine)
        await writer.start()
        try:
            return await writer.store(deliveries)
        finally:
            await writer.close()

    def statuses(self) -> dict[str, str]:
        """Dedup key to status."""
        with self.engine.connect() as connection:
            rows = connection.execute(
                text("SELECT dedup_key, status FROM inbox_deliveries ORDER BY seq")
            )
            return {row.dedup_key: row.status for row in rows}


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inbox") / "empty.db"
    open_database(f"sqlite:///{path}").dispose()
    return path


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    name = f"inbox_test_{uuid4().hex[:12]}"
    admin = create_engine(POSTGRESQL.format("postgres"), isolation_level="AUTOCOMMIT")
    try:
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
    except OperationalError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("no PostgreSQL on 127.0.0.1:5432 that trusts the user postgres")
    open_database(POSTGRESQL.format(name)).dispose()
    yield POSTGRESQL.format(name)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An up-to-date, empty state database."""
    if request.param == "sqlite":
        path = tmp_path / "state.db"
        shutil.copy(request.getfixturevalue("empty_sqlite"), path)
        found = open_database(f"sqlite:///{path}")
    else:
        found = open_database(request.getfixturevalue("postgresql_url"))
        with found.begin() as connection:
            connection.execute(
                text(
                    "TRUNCATE inbox_requests, inbox_payloads, inbox_deliveries, inbox_drains"
                    " RESTART IDENTITY"
                )
            )
    yield found
    found.dispose()


@pytest.fixture
def setup(engine: Engine) -> Iterator[Setup]:
    clock = Clock()
    inbox = Inbox(engine, clock=clock)
    yield Setup(
        engine,
        clock,
        inbox,
        Drains(engine, clock=clock),
        InboxOperations(engine, clock=clock),
        Claimer("run-1", lease_s=30),
    )
    inbox.close()


@pytest.fixture
def new(setup: Setup) -> Callable[..., NewDelivery]:
    """Makes deliveries that differ in their dedup key."""

    def make(dedup_key: str, **changes: object) -> NewDelivery:
        values: dict[str, object] = {
            "integration": "orders",
            "endpoint": "/hooks/orders",
            "event": "order.created",
            "dedup_key": dedup_key,
            "ordering_key": None,
            "headers": b'[["X-Event", "order.created"]]',
            "body": b'{"order": 1}',
            "payload": None,
            "content_type": "application/json",
            "received_at": setup.clock(),
        }
        return NewDelivery(**(values | changes))  # type: ignore[arg-type]

    return make
