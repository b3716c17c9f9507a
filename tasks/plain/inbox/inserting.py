"""Inserts many rows at once and leaves out those that are there already."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects import postgresql

# Few lengths of statement, which SQLite keeps compiled.
_ROWS_A_STATEMENT = (32, 8, 4, 2, 1)


def insert_in_sqlite(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    new_by: str | None = None,
) -> set[str]:
    """Insert the rows that break no uniqueness; of equal ones in `rows` the first.

    SQLAlchemy's look at every value costs several times what SQLite takes to insert it, and a
    statement a row gives the interpreter away and waits for it with each: the event loop holds it
    meanwhile. So few statements go to the driver itself, with many rows each.

    Args:
        connection: In a transaction of the driver.
        table: With a column "id".
        rows: With the same columns each.
        new_by: A column whose values no row had before; needed to know which rows are new.

    Returns:
        The ids of the rows that are new, where `new_by` is given; else nothing of use.
    """
    driver = sqlite_driver(connection)
    inserted, start = 0, 0
    for length in _ROWS_A_STATEMENT:
        while len(rows) - start >= length:
            values = [
                _in_sqlite(value) if type(value) is datetime else value
                for row in rows[start : start + length]
                for value in row.values()
            ]
            statement = _statement(table.name, tuple(rows[0]), length)
            inserted += driver.execute(statement, values).rowcount
            start += length
    if new_by is None:
        return set()
    if inserted == len(rows):
        return {row["id"] for row in rows}
    found = driver.execute(
        f"SELECT id FROM {table.name} WHERE {new_by} IN (SELECT value FROM json_each(?))",  # noqa: S608
        (json.dumps([row[new_by] for row in rows]),),
    )
    return {id_ for (id_,) in found}


def insert_in_postgresql(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    new_by: str | None = None,
) -> set[str]:
    """As `insert_in_sqlite`, on PostgreSQL."""
    if not rows:
        return set()
    statement = postgresql.insert(table).on_conflict_do_nothing()
    connection.execute(statement, list(rows))
    if new_by is None:
        return set()
    mine = table.c[new_by].in_([row[new_by] for row in rows])
    return set(connection.execute(select(table.c.id).where(mine)).scalars())


def sqlite_driver(connection: Connection) -> sqlite3.Connection:
    """The driver's own connection."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - the caller looked at the dialect
    return driver


@lru_cache(maxsize=64)
def _statement(table: str, columns: tuple[str, ...], rows: int) -> str:
    marks = f"({', '.join('?' * len(columns))})"
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([marks] * rows)} "  # noqa: S608
        "ON CONFLICT DO NOTHING"
    )


def _in_sqlite(instant: datetime) -> str:
    if instant.tzinfo is None:
        raise ValueError("instants are aware: give datetime.now(UTC), not datetime.now()")
    # as the column type `Instant` writes it
    return instant.astimezone(UTC).isoformat(" ", "microseconds").removesuffix("+00:00")
