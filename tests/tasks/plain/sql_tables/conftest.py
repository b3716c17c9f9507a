"""A database of each kind that can be had, with tables of our own that are dropped again."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from blocks.sql_database import SqlDatabase

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
