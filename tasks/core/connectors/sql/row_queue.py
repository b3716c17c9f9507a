"""A table as a queue: one importer at a time takes each row, and marks or deletes it when done.

Rows stay locked while they are processed, and are marked in the same transaction. So if a process
dies, the database releases its rows unmarked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    column,
    delete,
    select,
    table,
    update,
)

from blocks.errors import MisconfiguredError
from tasks.core.connectors.sql.sql_errors import sql_errors

# SQL Server's dialect silently drops SKIP LOCKED; this hint does the same there.
_MSSQL_SKIP_LOCKED = "WITH (UPDLOCK, READPAST, ROWLOCK)"
_MAX_REASON = 500

Value = str | int | None


class RowQueueSettings(BaseModel):
    """Which rows of a table wait, and what happens to them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    take: Literal["waiting"] = Field("waiting", description="Take the rows that wait.")

    table: str = Field(min_length=1, description="The table.")
    schema_name: str | None = Field(None, description="Its schema, if not the default.")
    key: str = Field(description="The column of its primary key; rows are taken in its order.")
    columns: list[str] = Field(min_length=1, description="The columns to read.")
    status_column: str | None = Field(None, description="Column for the state of a row.")
    ready: Value = Field(None, description="State of rows that wait; null for NULL.")
    done: Value = Field("done", description="State of rows that are done.")
    failed: Value = Field("failed", description="State of rows that are bad.")
    reason_column: str | None = Field(None, description="Column for the reason why a row is bad.")
    after: Literal["mark", "delete"] = Field("mark", description="What happens to rows when done.")

    @model_validator(mode="after")
    def _can_tell_rows_apart(self) -> Self:
        if self.after == "mark" and self.status_column is None:
            raise ValueError("marking needs the status_column")
        if self.status_column is not None and self.ready in (self.done, self.failed):
            raise ValueError("ready must differ from done and failed")
        return self


class LockedRows:
    """Rows that are locked until the transaction ends.

    Attributes:
        rows: Column to value, in the order of the key.
    """

    def __init__(self, rows: list[dict[str, Any]], key: str, *, can_fail: bool) -> None:
        self.rows = rows
        self._key = key
        self._can_fail = can_fail
        self.failed: dict[Any, str] = {}

    def fail(self, row: Mapping[str, Any], reason: str) -> None:
        """Mark a row as bad, and continue with the others.

        Raises:
            MisconfiguredError: There is no column to mark it in: the import must stop.
        """
        if not self._can_fail:
            raise MisconfiguredError(
                f"it is bad ({reason[:_MAX_REASON]}), and there is no column to mark it: declare "
                "a status_column, or fix or delete the row",
                system="table",
                operation="import row",
                record=str(row[self._key]),
            )
        self.failed[row[self._key]] = reason[:_MAX_REASON]


class RowQueue:
    """Takes rows out of a table.

    Args:
        engine: From a `SqlDatabase` block.
        settings: Which rows, and what happens to them.
        system: The database, for errors.
    """

    def __init__(self, engine: Engine, settings: RowQueueSettings, *, system: str) -> None:
        self._engine = engine
        self._settings = settings
        self._system = system
        names = {settings.key, *settings.columns}
        names |= {each for each in (settings.status_column, settings.reason_column) if each}
        self._table = table(
            settings.table, *(column(name) for name in sorted(names)), schema=settings.schema_name
        )

    @contextmanager
    def lock(self, limit: int) -> Iterator[LockedRows]:
        """Lock up to `limit` rows; mark or delete them when the block succeeds.

        If the block raises, the rows are released unchanged. Rows that another importer has
        locked are skipped.

        Raises:
            IntegrationError: As in `sql_errors`.
        """
        settings = self._settings
        with sql_errors(self._system, "lock rows", record=settings.table):
            connection = self._engine.connect()
        try:
            with sql_errors(self._system, "lock rows", record=settings.table):
                transaction = connection.begin()
                found = connection.execute(self.lock_statement(limit)).mappings()
                rows = [dict(row) for row in found]
            locked = LockedRows(rows, settings.key, can_fail=settings.status_column is not None)
            yield locked
            with sql_errors(self._system, "mark rows", record=settings.table):
                self._settle(connection, locked)
                transaction.commit()
        finally:
            connection.close()  # rolls back what was not committed

    def waiting(self) -> int:
        """Return how many rows wait."""
        from sqlalchemy import func

        with sql_errors(self._system, "count rows"), self._engine.connect() as connection:
            statement = select(func.count()).select_from(self._table).where(*self._is_ready())
            return connection.execute(statement).scalar_one()

    def lock_statement(self, limit: int) -> Select[Any]:
        """Return the statement that locks the rows; public to test it per dialect."""
        names = dict.fromkeys([self._settings.key, *self._settings.columns])
        return (
            select(*(self._table.c[name] for name in names))
            .where(*self._is_ready())
            .order_by(self._table.c[self._settings.key])
            .limit(limit)
            .with_for_update(skip_locked=True)
            .with_hint(self._table, _MSSQL_SKIP_LOCKED, "mssql")
        )

    def _settle(self, connection: Connection, locked: LockedRows) -> None:
        settings, target = self._settings, self._table
        keys = [row[settings.key] for row in locked.rows if row[settings.key] not in locked.failed]
        for at in range(0, len(keys), 500):
            chosen = target.c[settings.key].in_(keys[at : at + 500])
            if settings.after == "delete":
                connection.execute(delete(target).where(chosen))
            else:
                connection.execute(
                    update(target)
                    .where(chosen)
                    .values({str(settings.status_column): settings.done})
                )
        for key, reason in locked.failed.items():
            values: dict[str, Any] = {str(settings.status_column): settings.failed}
            if settings.reason_column is not None:
                values[settings.reason_column] = reason
            connection.execute(update(target).where(target.c[settings.key] == key).values(values))

    def _is_ready(self) -> list[ColumnElement[bool]]:
        if self._settings.status_column is None:
            return []
        status = self._table.c[self._settings.status_column]
        return [
            status.is_(None) if self._settings.ready is None else status == self._settings.ready
        ]
