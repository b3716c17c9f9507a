"""An inbox on each database, empty for each test, with a clock that the test turns."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, text

from tasks.core.intake.inbox.consumer_registry import ConsumerRegistry
from tasks.core.intake.inbox.new_delivery import NewDelivery, StoredDelivery
from tasks.core.intake.inbox.operations import InboxOperations
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.store import Inbox
from tasks.core.intake.inbox.tables import CONSUMERS, DELIVERIES, PAYLOADS, REQUESTS
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.state.database import open_database


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
    consumers: ConsumerRegistry
    operations: InboxOperations
    owner: LeaseOwner

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


@pytest.fixture(params=["sqlite", "postgresql"])
def state_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty state database; only the inbox's tables are emptied, which is faster."""
    if request.param == "sqlite":
        path = tmp_path / "state.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        engine = open_database(f"sqlite:///{path}")
    else:
        engine = open_database(request.getfixturevalue("postgresql_url"))
        with engine.begin() as connection:
            for table in (REQUESTS, PAYLOADS, DELIVERIES, CONSUMERS):
                connection.execute(delete(table))
    yield engine
    engine.dispose()


@pytest.fixture
def setup(state_database: Engine) -> Iterator[Setup]:
    clock = Clock()
    inbox = Inbox(state_database, clock=clock)
    yield Setup(
        state_database,
        clock,
        inbox,
        ConsumerRegistry(state_database, clock=clock),
        InboxOperations(state_database, clock=clock),
        LeaseOwner("run-1", lease_s=30),
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
