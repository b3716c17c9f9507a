"""Leases on the rows of a table: one owner at a time, and a late owner can no longer write.

A row is leased until `lease_until_at`. What proves a lease is the row's fencing token, which
grows with each lease; in a table without tokens it is the owner.

    with writing(engine) as connection:
        row = leases.find(connection, FILES.c.identity == identity)
        leased = leases.acquire(connection, row, owner=run_id)    # None: somebody else has it
    with writing(engine) as connection:
        leases.renew(connection, leased.id, leased.token, rows_imported=7)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Row, Table, select, update

from blocks.errors import LeaseLostError
from tasks.core.state.database import insert_or_ignore

FREE = datetime.fromtimestamp(0, UTC)


def utc_now() -> datetime:
    """The present, aware."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leases:
    """The leases on one table's rows; every call is part of its caller's transaction.

    Attributes:
        key: Identifies a row. Its table has `lease_until_at`, and `token` or `owner` or both.
        lease_s: How long a lease lasts without being renewed.
        clock: Gives aware UTC instants. The clocks of machines that share the database must
            agree to well within a lease.
        system: Of the error when a lease is lost.
        operation: Likewise.
        lost: Likewise: what happened.
    """

    key: Column[Any]
    lease_s: float
    clock: Callable[[], datetime] = utc_now
    system: str
    operation: str
    lost: str

    @property
    def table(self) -> Table:
        """Whose rows are leased."""
        return self.key.table

    def find(self, connection: Connection, *where: ColumnElement[bool]) -> Row[Any] | None:
        """The row, locked until the transaction ends; on SQLite the whole database is."""
        query = select(self.table).where(*where).with_for_update()
        return connection.execute(query).one_or_none()

    def find_or_insert(self, connection: Connection, values: dict[str, Any]) -> Row[Any]:
        """The row with the key in `values`, locked; inserted with these if it is not there."""
        free = {"lease_until_at": FREE, **({"token": 0} if "token" in self.table.c else {})}
        insert_or_ignore(connection, self.table, free | values, key=[self.key.name])
        query = select(self.table).where(self.key == values[self.key.name]).with_for_update()
        return connection.execute(query).one()

    def is_leased(self, row: Row[Any], *, to_other_than: str | None = None) -> bool:
        """Whether a lease on the row lasts; with `to_other_than`, one of another owner."""
        if row.lease_until_at is None or row.lease_until_at <= self.clock():
            return False
        return to_other_than is None or row.owner != to_other_than

    def columns(self, owner: str | None, *, token: int = 1) -> dict[str, Any]:
        """The lease columns of a row that is leased from now on."""
        until_at = self.clock() + timedelta(seconds=self.lease_s)
        values = {"owner": owner, "token": token, "lease_until_at": until_at}
        return {name: value for name, value in values.items() if name in self.table.c}

    def acquire(
        self,
        connection: Connection,
        row: Row[Any],
        *,
        owner: str | None = None,
        is_free: bool = False,
        **values: Any,
    ) -> Row[Any] | None:
        """Lease a row that is free, whose lease has run out, or that is the owner's already.

        Args:
            connection: Of the transaction that found the row.
            row: From `find`.
            owner: Who leases it; None in a table without owners: nobody takes a row twice.
            is_free: Its lease counts no more, whatever it says.
            values: Other columns to set.

        Returns:
            The row as it is now; None if it is leased to somebody else.
        """
        if not is_free and self.is_leased(row, to_other_than=owner):
            return None
        leasing = self.columns(owner, token=getattr(row, "token", 0) + 1)
        return connection.execute(
            update(self.table)
            .where(self.key == getattr(row, self.key.name))
            .values(leasing | values)
            .returning(*self.table.c)
        ).one()

    def renew(
        self,
        connection: Connection,
        key: str,
        proof: int | str,
        *,
        record: str | None = None,
        **values: Any,
    ) -> None:
        """Extend the lease, and write what its owner has done; a state among it may end it.

        Args:
            connection: Of a writing transaction.
            key: Of the row.
            proof: The token, or the owner where there are no tokens.
            record: What the error names; None for the key.
            values: Other columns to set.

        Raises:
            LeaseLostError: Somebody else has leased it since; nothing was written.
        """
        until_at = self.clock() + timedelta(seconds=self.lease_s)
        if not self._update(connection, key, proof, {"lease_until_at": until_at} | values):
            raise LeaseLostError(
                self.lost, system=self.system, operation=self.operation, record=record or key
            )

    def release(self, connection: Connection, key: str, proof: int | str, **values: Any) -> bool:
        """End the lease; False, and nothing is written, if somebody else has leased it since."""
        return self._update(connection, key, proof, {"lease_until_at": FREE} | values)

    def _update(
        self, connection: Connection, key: str, proof: int | str, values: dict[str, Any]
    ) -> bool:
        columns = self.table.c
        proven = (columns.token if "token" in columns else columns.owner) == proof
        statement = update(self.table).where(self.key == key, proven).values(values)
        return connection.execute(statement).rowcount > 0
