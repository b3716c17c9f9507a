"""Inserts many rows at once and leaves out those that are there already."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    Integer,
    LargeBinary,
    String,
    Table,
)
from sqlalchemy.types import TypeEngine

from tasks.core.state.tables import Instant

_NAIVE = "instants are aware: give datetime.now(UTC), not datetime.now()"
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
    """As `insert_in_sqlite`, on PostgreSQL.

    One statement takes an array for each column: a statement a row costs the driver seven times
    as much, and the server several times.
    """
    if not rows:
        return set()
    names = tuple(rows[0])
    types = [_array_type(table.c[name].type) for name in names]
    values = tuple([row[name] for row in rows] for name in names)
    for kind, column in zip(types, values, strict=True):
        if kind == "timestamptz" and any(each and each.tzinfo is None for each in column):
            raise ValueError(_NAIVE)
    arrays = ", ".join(f"%b::{kind}[]" for kind in types)
    statement = (
        f"INSERT INTO {table.name} ({', '.join(names)}) SELECT * FROM unnest({arrays}) "  # noqa: S608
        "ON CONFLICT DO NOTHING"
    )
    if new_by is None:
        connection.exec_driver_sql(statement, values)
        return set()
    # what is returned was inserted by this statement, so nobody had it before
    return set(connection.exec_driver_sql(f"{statement} RETURNING id", values).scalars())


def _array_type(kind: TypeEngine[Any]) -> str:
    for known, name in _ARRAY_TYPES.items():
        if isinstance(kind, known):
            return name
    raise TypeError(f"no array is known for the column type {kind!r}; name one")


# Texts without their lengths: the table checks those, while a cast would cut.
_ARRAY_TYPES: dict[type[TypeEngine[Any]], str] = {
    Boolean: "boolean",
    BigInteger: "bigint",
    Integer: "integer",
    LargeBinary: "bytea",
    String: "text",
    Instant: "timestamptz",
}


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


@lru_cache(maxsize=64)  # rows of one batch share theirs
def _in_sqlite(instant: datetime) -> str:
    if instant.tzinfo is None:
        raise ValueError(_NAIVE)
    # as the column type `Instant` writes it
    return instant.astimezone(UTC).isoformat(" ", "microseconds").removesuffix("+00:00")
