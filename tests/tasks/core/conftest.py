"""What tests of several shelves share: databases of each kind, and a small report."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from blocks.sql_database import SqlDatabase
from tasks.core.formats.reports.period import PeriodRule
from tasks.core.formats.reports.report import Chart, Report, ReportColumn
from tasks.core.threads import check_cancelled, in_thread

SERVERS = {
    "postgresql": {"host": "127.0.0.1", "database": "postgres", "username": "postgres"},
    "mariadb": {"host": "127.0.0.1", "database": "test", "username": "root"},
}
BINARY = {"postgresql": "BYTEA", "mariadb": "LONGBLOB", "sqlite": "BLOB"}


@dataclass
class Shop:
    """A database with one table of another system."""

    kind: str
    engine: Engine
    system: str
    table: str = field(default_factory=lambda: f"test_{uuid.uuid4().hex[:12]}")

    def create(self, columns: str) -> None:
        self.run(f"CREATE TABLE {self.table} ({columns.format(binary=BINARY[self.kind])})")

    def run(self, statement: str, rows: Any = None) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement.format(table=self.table)), rows)

    def rows(self, columns: str = "*", order: str = "id") -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            statement = f"SELECT {columns} FROM {self.table} ORDER BY {order}"
            return [tuple(row) for row in connection.execute(text(statement))]


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """An empty database of each kind."""
    kind = request.param
    fields = SERVERS.get(kind, {"database": str(tmp_path / "shop.db")})
    block = SqlDatabase(kind=kind, tls=False, connect_timeout_s=3, **fields)
    found = Shop(kind, block.get_client(), block.system)
    try:
        found.engine.connect().close()
    except OperationalError as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no {kind} on this machine ({exc.orig})")
    yield found
    found.run("DROP TABLE IF EXISTS {table}")
    found.engine.dispose()


@pytest.fixture
def cancelling() -> Callable[[Callable[[Callable[[], None]], object]], None]:
    """Calls a function in a thread; the caller is cancelled when the function says so.

    The function is given what cancels, which returns as soon as the thread can learn of it.
    """

    async def call(function: Callable[[Callable[[], None]], object]) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def cancel() -> None:
            loop.call_soon_threadsafe(task.cancel)
            with suppress(asyncio.CancelledError):
                while True:
                    copy_context().run(check_cancelled)  # the thread itself is not told yet
                    time.sleep(0.001)

        await in_thread(function, cancel)

    def run(function: Callable[[Callable[[], None]], object]) -> None:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(call(function))

    return run


COLUMNS = (
    ReportColumn(name="order_no", title="Order"),
    ReportColumn(name="customer", title="Customer"),
    ReportColumn(name="ordered_at", title="Ordered at", kind="instant"),
    ReportColumn(name="due", kind="date"),
    ReportColumn(name="lines", kind="integer", total=True),
    ReportColumn(name="weight", kind="number", total=True),
    ReportColumn(name="total", title="Total", kind="money", total=True),
    ReportColumn(name="paid", kind="yes_no"),
)


@pytest.fixture
def report() -> Report:
    """Orders of the week that ended on Thursday 23 July 2026, 19:00 in Berlin."""
    rule = PeriodRule(unit="week", weekday="thursday", at="19:00", zone="Europe/Berlin")
    return Report(
        name="sales",
        title="Weekly sales",
        period=rule.period_at(datetime(2026, 7, 23, 17, tzinfo=UTC)),
        columns=COLUMNS,
        chart=Chart(label="customer", value="total"),
    )


@pytest.fixture
def rows() -> list[dict]:
    """Three orders: a plain one, one that attacks spreadsheets, one with nothing in it."""
    return [
        {
            "order_no": "SO-1",
            "customer": "Müller & Söhne, GmbH",
            "ordered_at": datetime(2026, 7, 17, 8, 30, tzinfo=UTC),
            "due": date(2026, 8, 1),
            "lines": 3,
            "weight": 0.5,
            "total": Decimal("1234.50"),
            "paid": True,
        },
        {
            "order_no": "-SO-2",
            "customer": '=HYPERLINK("http://x.example","株式会社")',
            "ordered_at": datetime(2026, 7, 18, 22, 0, tzinfo=UTC),
            "due": None,
            "lines": -1,
            "weight": -2.25,
            "total": Decimal("-0.10"),
            "paid": False,
        },
        dict.fromkeys([column.name for column in COLUMNS], None),
    ]
