"""Keeps one cursor a stream; only the run that holds a stream can move it.

A stream is one list of one other system that is imported again and again, e.g.
"marketplace-orders". A run holds it by a lease with a fencing token: two runs are never at the
same stream, and a run whose lease was taken over can no longer write.

    cursors = Cursors(engine)
    lease = cursors.lease("tickets", owner=run_id)
    if isinstance(lease, StreamBusy): …another run is at it…
    …read what is behind lease.value, hand it over…
    lease = cursors.advance(lease, "2026-03-01T12:00:00Z")
    cursors.release(lease)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, select, update

from blocks.errors import MisconfiguredError, UpstreamBusyError
from tasks.core.state.database import reading, writing
from tasks.core.state.leases import Leases, utc_now
from tasks.core.sync.api_import.cursor_tables import CURSORS, REJECTS, TAKEN, WINDOWS

_SYSTEM = "state database"


@dataclass(frozen=True, slots=True)
class StreamLease:
    """The right to import a stream until the lease runs out.

    Attributes:
        stream: Which.
        value: Its cursor, as text of the importer's own form; None before the first import.
        token: Fencing token; a later hold has a greater one.
    """

    stream: str
    value: str | None
    token: int


@dataclass(frozen=True, slots=True)
class StreamBusy:
    """Another run is at it.

    Attributes:
        stream: At what.
        owner: Which run.
        until_at: When its lease ends, unless it goes on.
    """

    stream: str
    owner: str
    until_at: datetime


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream as an operator sees it.

    Attributes:
        value: The cursor.
        advanced_at: When it last moved.
        owner: The run that is at it, if one is.
        open_windows: What was begun and not finished: "" for what is new, else a backfill's range.
        pages: Pages read of those.
        taken: Records remembered, so that reading them again does not import them again.
        rejected: Rejects of the last 30 days.
    """

    stream: str
    value: str | None
    advanced_at: datetime | None
    owner: str | None
    open_windows: tuple[str, ...]
    pages: int
    taken: int
    rejected: int


class Cursors:
    """The cursors in one state database.

    Args:
        engine: The state database.
        lease_s: How long a hold lasts without being extended; each write extends it.
        clock: Gives aware UTC instants.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        lease_s: float = 300,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.engine = engine
        self.clock = clock
        self._leases = Leases(
            key=CURSORS.c.stream,
            lease_s=lease_s,
            clock=clock,
            system=_SYSTEM,
            operation="import",
            lost="the lease ran out and another run took the stream over, or its cursor was "
            "set by hand; nothing is lost, the next run goes on",
        )

    def lease(self, stream: str, *, owner: str) -> StreamLease | StreamBusy:
        """Take a stream, or learn who has it; a stream begins by being taken.

        Args:
            stream: Its name.
            owner: The run; a retried run has the same owner and takes its stream up at once.
        """
        now = self.clock()
        with writing(self.engine) as connection:
            row = self._leases.find_or_insert(connection, {"stream": stream, "updated_at": now})
            leased = self._leases.acquire(connection, row, owner=owner, updated_at=now)
        if leased is None:
            return StreamBusy(stream, row.owner, row.lease_until_at)
        return StreamLease(stream, leased.value, leased.token)

    def advance(self, lease: StreamLease, value: str) -> StreamLease:
        """Move the cursor, after the sink has committed what is before it; extends the lease.

        Raises:
            LeaseLostError: Another run took the stream over.
        """
        with self.leased(lease, value=value, advanced_at=self.clock()):
            return replace(lease, value=value)

    def extend(self, lease: StreamLease) -> None:
        """Hold the stream for another lease; same errors as `advance`."""
        with self.leased(lease):
            pass

    def release(self, lease: StreamLease) -> None:
        """Let others have it; nothing happens if another run has it already."""
        with writing(self.engine) as connection:
            self._leases.release(
                connection,
                lease.stream,
                lease.token,
                owner=None,
                lease_until_at=None,
                updated_at=self.clock(),
            )

    def set(self, stream: str, value: str | None, *, dry_run: bool = False) -> str | None:
        """Put a cursor elsewhere by hand: what is behind it is imported by the next run.

        Windows under way and the memory of what was taken are dropped with it, so that nothing
        of what is to be read again is left out.

        Args:
            stream: Its name.
            value: In the form of the present one; None for the beginning.
            dry_run: Only check whether it could be set.

        Returns:
            The cursor it had.

        Raises:
            MisconfiguredError: There is no such stream, or the value is of another form.
            UpstreamBusyError: A run is at it.
        """
        now = self.clock()
        with writing(self.engine) as connection:
            row = self._leases.find(connection, CURSORS.c.stream == stream)
            if row is None:
                known = connection.execute(select(CURSORS.c.stream).order_by(CURSORS.c.stream))
                names = ", ".join(known.scalars()) or "none yet"
                raise MisconfiguredError(
                    f"there is no such stream; there are: {names}",
                    system=_SYSTEM,
                    operation="set cursor",
                    record=stream,
                )
            if self._leases.is_leased(row):
                raise UpstreamBusyError(
                    f"run {row.owner} is at it; wait until it has ended, or cancel it",
                    system=_SYSTEM,
                    operation="set cursor",
                    record=stream,
                )
            if _is_instant(row.value) and value is not None and not _is_instant(value):
                raise MisconfiguredError(
                    "its cursor is an instant; write one with its zone, e.g. 2026-03-01T12:00:00Z",
                    system=_SYSTEM,
                    operation="set cursor",
                    record=stream,
                )
            if not dry_run:
                _set(connection, stream, value, now)
        before: str | None = row.value
        return before

    def streams(self) -> list[StreamState]:
        """All streams, by name."""
        with reading(self.engine) as connection:
            taken = _counts(connection, TAKEN.c.stream)
            rejected = _counts(connection, REJECTS.c.stream)
            windows = connection.execute(
                select(WINDOWS.c.stream, WINDOWS.c.name, WINDOWS.c.pages).order_by(WINDOWS.c.name)
            ).all()
            rows = connection.execute(select(CURSORS).order_by(CURSORS.c.stream)).all()
        return [
            StreamState(
                row.stream,
                row.value,
                row.advanced_at,
                row.owner if self._leases.is_leased(row) else None,
                tuple(window.name for window in windows if window.stream == row.stream),
                sum(window.pages for window in windows if window.stream == row.stream),
                taken.get(row.stream, 0),
                rejected.get(row.stream, 0),
            )
            for row in rows
        ]

    @contextmanager
    def leased(self, lease: StreamLease, **values: Any) -> Iterator[Connection]:
        """A transaction of the run that holds the stream; extends the lease.

        Args:
            lease: Ours.
            values: Columns of the cursor to set.

        Raises:
            LeaseLostError: Another run took the stream over.
        """
        with writing(self.engine) as connection:
            values["updated_at"] = self.clock()
            self._leases.renew(connection, lease.stream, lease.token, **values)
            yield connection


def _set(connection: Connection, stream: str, value: str | None, now: datetime) -> None:
    connection.execute(delete(WINDOWS).where(WINDOWS.c.stream == stream))
    connection.execute(delete(TAKEN).where(TAKEN.c.stream == stream))
    connection.execute(
        update(CURSORS)
        .where(CURSORS.c.stream == stream)
        .values(
            value=value,
            owner=None,
            token=CURSORS.c.token + 1,
            lease_until_at=None,
            advanced_at=now,
            updated_at=now,
        )
    )


def _counts(connection: Connection, column: Any) -> dict[str, int]:
    rows = connection.execute(select(column, func.count()).group_by(column))
    return {row[0]: row[1] for row in rows}


def _is_instant(value: str | None) -> bool:
    try:
        return value is not None and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
