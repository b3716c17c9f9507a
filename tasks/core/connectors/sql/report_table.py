"""Writes rows to a table atomically: readers see either the old rows or all the new ones.

The rows first go into a temporary table; then one or two statements copy them, in the same
transaction. The table is not renamed, so that its permissions, indexes, triggers and views stay,
and upserts are avoided, so that the statements mean the same on every database.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from sqlalchemy import (
    Connection,
    Dialect,
    Engine,
    TableClause,
    and_,
    column,
    delete,
    exists,
    func,
    insert,
    select,
    table,
    text,
    update,
)

from blocks.errors import BadPayloadError
from tasks.core.connectors.sql.sql_errors import sql_errors
from tasks.core.threads import check_cancelled

_CHUNK = 1000
_MSSQL_KEEP_OUT = "WITH (UPDLOCK, HOLDLOCK)"


class ReportTable:
    """A table that takes reports.

    Args:
        engine: From a `SqlDatabase` block.
        name: The table; it exists already.
        columns: The columns to write.
        system: The database, for errors.
        schema_name: The table's schema, if not the default.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        columns: Sequence[str],
        *,
        system: str,
        schema_name: str | None = None,
    ) -> None:
        self._engine = engine
        self._system = system
        self._columns = list(columns)
        self._target = table(name, *(column(each) for each in columns), schema=schema_name)

    def replace(
        self, rows: Iterable[Mapping[str, Any]], *, where: Mapping[str, Any] | None = None
    ) -> int:
        """Replace the existing rows with these.

        Args:
            rows: Column to value; memory does not grow with their number.
            where: Only rows with these values are replaced, e.g. {"period": "2026-W09"}, so that
                a report that is sent again replaces itself.

        Returns:
            Number of rows written.
        """
        conditions = [self._target.c[name] == value for name, value in (where or {}).items()]
        with self._loaded(rows) as (connection, staging, count):
            connection.execute(delete(self._target).where(*conditions))
            connection.execute(self._insert(select(*staging.c)))
        return count

    def merge(self, rows: Iterable[Mapping[str, Any]], *, key: Sequence[str]) -> int:
        """Update existing rows by key, and insert the others.

        Args:
            rows: Column to value, each key once; memory does not grow with their number.
            key: The columns that identify a row, on which the table has a unique index.

        Returns:
            Number of rows written.

        Raises:
            BadPayloadError: Two rows have the same key.
        """
        with self._loaded(rows) as (connection, staging, count):
            keys = [staging.c[name] for name in key]
            doubled = select(*keys).group_by(*keys).having(func.count() > 1).limit(1)
            if connection.execute(doubled).first() is not None:
                raise BadPayloadError(
                    f"two rows have the same {', '.join(key)}",
                    system=self._system,
                    operation="merge",
                    record=self._target.name,
                )
            for statement in self.merge_statements(staging, key):
                connection.execute(statement)
        return count

    def merge_statements(self, staging: TableClause, key: Sequence[str]) -> list[Any]:
        """Return the statements that copy staged rows; public to test them per dialect."""
        target = self._target
        same = and_(*(target.c[name] == staging.c[name] for name in key))
        others = [name for name in self._columns if name not in key]
        known = (
            select(1).select_from(target).where(same).with_hint(target, _MSSQL_KEEP_OUT, "mssql")
        )
        statements: list[Any] = []
        if others:
            statements.append(
                update(target).values({name: staging.c[name] for name in others}).where(same)
            )
        statements.append(self._insert(select(*staging.c).where(~exists(known.correlate(staging)))))
        return statements

    def staging_statement(self, name: str, dialect: Dialect) -> str:
        """Return the statement that creates the temporary table; public for the same reason."""
        none = str(select(*self._target.c).where(text("1 = 0")).compile(dialect=dialect))
        quoted = dialect.identifier_preparer.quote_identifier(name)
        if dialect.name != "mssql":
            return f"CREATE TEMPORARY TABLE {quoted} AS {none}"
        columns, line_break, rest = none.partition("\nFROM ")  # names hold no line break
        return f"{columns}\nINTO {quoted}{line_break}{rest}"

    def _insert(self, rows: Any) -> Any:
        return insert(self._target).from_select(self._columns, rows)

    @contextmanager
    def _loaded(
        self, rows: Iterable[Mapping[str, Any]]
    ) -> Iterator[tuple[Connection, TableClause, int]]:
        with (
            sql_errors(self._system, "write report", record=self._target.name),
            self._engine.begin() as connection,
        ):
            staging = self._make_staging(connection)
            count = 0
            remaining = iter(rows)
            while chunk := list(islice(remaining, _CHUNK)):
                check_cancelled()
                values = [{name: row[name] for name in self._columns} for row in chunk]
                connection.execute(insert(staging), values)
                count += len(chunk)
            yield connection, staging, count
            connection.execute(text(f"DROP TABLE {_quoted(connection, staging.name)}"))

    def _make_staging(self, connection: Connection) -> TableClause:
        name = f"staging_{uuid.uuid4().hex[:12]}"
        is_mssql = connection.dialect.name == "mssql"
        staging = table(f"#{name}" if is_mssql else name, *(column(c) for c in self._columns))
        connection.execute(text(self.staging_statement(staging.name, connection.dialect)))
        return staging


def _quoted(connection: Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name)
