"""The windows of an import: what is being read, how far, and what of it was taken.

A window is what one import reads: all that changed since the cursor, or a backfill's range. Each
page is one transaction: where the next page is, which records were taken, and the batch in hand,
which is about to be sent. Whoever goes on after a crash sends the batch in hand again under its
key, which has no second effect, and reads the next page. When all has arrived, the cursor moves
and the window is gone, in one transaction.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from tasks.core.state.database import insert_for, reading
from tasks.core.sync.api_import.cursor_tables import REJECTS, TAKEN, WINDOWS
from tasks.core.sync.api_import.cursors import Cursors, StreamLease
from tasks.core.sync.batches.result import Counts, RejectedRecord

_REJECTS_KEPT = timedelta(days=30)
_NAMES_A_QUERY = 500


class TakenRecord(NamedTuple):
    """A record that was read, by which it is known again.

    Attributes:
        id: Its identity at the source.
        digest: Of its content: a changed record is another one.
        changed_at: As the source says.
    """

    id: str
    digest: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Batch:
    """Records on their way to the application.

    Attributes:
        key: Idempotency key; the same however often the batch is sent.
        records: A JSON array.
        ids: Of the records, in order.
    """

    key: str
    records: bytes = field(repr=False)
    ids: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Arrival:
    """What became of the batch that was in hand."""

    counts: Counts = field(default_factory=Counts)
    rejects: tuple[RejectedRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class PageTaken:
    """One page, read and sorted.

    Attributes:
        next_position: Where the next one is; None if this was the last.
        newest_at: The latest change seen in the window so far.
        batch: What is to be sent of it, if anything.
        taken: All its new records.
        rejects: Those of them that are not sent.
        known: How many were taken before.
        forget_before_at: Records that changed before are not met again.
    """

    next_position: Any
    newest_at: datetime | None
    batch: Batch | None
    taken: Sequence[TakenRecord]
    rejects: Sequence[RejectedRecord]
    known: int
    forget_before_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """A window as it is stored.

    Attributes:
        id: Root of its batches' keys.
        name: "" for what is new, else the backfill's range.
        since_at: Its beginning; None for everything.
        until_at: Its end, which does not belong to it; None for none.
        opened_at: When it was begun.
        position: The next page to read, as JSON knows it; None for the first.
        is_read: There is no next page.
        newest_at: The latest change seen.
        pages: How many were read.
        counts: What became of their records so far.
        batch: The batch in hand.
        is_resumed: An earlier attempt began it.
    """

    id: str
    name: str
    since_at: datetime | None
    until_at: datetime | None
    opened_at: datetime
    position: Any
    is_read: bool
    newest_at: datetime | None
    pages: int
    counts: Counts
    batch: Batch | None
    is_resumed: bool = False


class Windows:
    """The windows of all streams in one state database."""

    def __init__(self, cursors: Cursors) -> None:
        self._cursors = cursors

    def open(
        self,
        lease: StreamLease,
        *,
        name: str = "",
        since_at: datetime | None,
        until_at: datetime | None = None,
    ) -> Window:
        """The window of that name that is under way, else a new one.

        Raises:
            LeaseLostError: As in all methods that take a hold and write.
        """
        with self._cursors.leased(lease) as connection:
            row = _find(connection, lease.stream, name)
            if row is not None:
                return replace(_window(row), is_resumed=True)
            connection.execute(
                insert(WINDOWS).values(
                    id=uuid.uuid4().hex,
                    stream=lease.stream,
                    name=name,
                    since_at=since_at,
                    until_at=until_at,
                    opened_at=self._cursors.clock(),
                    is_read=False,
                    pages=0,
                    records=0,
                    known=0,
                    rejected=0,
                    created=0,
                    updated=0,
                    unchanged=0,
                )
            )
            row = _find(connection, lease.stream, name)
            assert row is not None, "was inserted in this transaction"  # noqa: S101
            return _window(row)

    def known(self, stream: str, ids: Sequence[str]) -> Mapping[str, str]:
        """Identity to digest of those records that were taken before."""
        found: dict[str, str] = {}
        with reading(self._cursors.engine) as connection:
            for start in range(0, len(ids), _NAMES_A_QUERY):
                query = select(TAKEN.c.record_id, TAKEN.c.digest).where(
                    TAKEN.c.stream == stream,
                    TAKEN.c.record_id.in_(ids[start : start + _NAMES_A_QUERY]),
                )
                found.update((row.record_id, row.digest) for row in connection.execute(query))
        return found

    def newest_taken_at(self, stream: str) -> datetime | None:
        """The latest change among the records that are remembered."""
        query = select(func.max(TAKEN.c.changed_at)).where(TAKEN.c.stream == stream)
        with reading(self._cursors.engine) as connection:
            newest_at: datetime | None = connection.execute(query).scalar()
            return newest_at

    def store_page(
        self, lease: StreamLease, window: Window, page: PageTaken, before: Arrival
    ) -> Window:
        """Note that the batch in hand arrived, and put this page's in its place.

        Args:
            lease: Ours.
            window: As it was stored last.
            page: The page that was read now.
            before: What became of the batch that was in hand until now.
        """
        counts = window.counts + before.counts
        counts += Counts(known=page.known, rejected=len(page.rejects))
        stored = replace(
            window,
            position=page.next_position,
            is_read=page.next_position is None,
            newest_at=page.newest_at,
            pages=window.pages + 1,
            counts=counts,
            batch=page.batch,
        )
        with self._cursors.leased(lease) as connection:
            _note_rejects(
                connection, lease, window, [*before.rejects, *page.rejects], self._cursors.clock()
            )
            _remember(connection, lease.stream, page.taken)
            if page.forget_before_at is not None:
                _forget_before(connection, lease.stream, page.forget_before_at)
            _update(connection, stored, batch_position=_written(window.position))
        return stored

    def settle_batch(self, lease: StreamLease, window: Window, arrival: Arrival) -> Window:
        """Note that the batch in hand arrived, without another page."""
        stored = replace(window, counts=window.counts + arrival.counts, batch=None)
        with self._cursors.leased(lease) as connection:
            _note_rejects(connection, lease, window, arrival.rejects, self._cursors.clock())
            _update(connection, stored)
        return stored

    def take_back(self, lease: StreamLease, window: Window) -> Window:
        """The application refused the batch in hand as a whole: its page is read again."""
        if window.batch is None:
            return window
        with self._cursors.leased(lease) as connection:
            row = _find(connection, lease.stream, window.name)
            assert row is not None, "the window is ours"  # noqa: S101
            stored = replace(
                window,
                position=_read(row.batch_position),
                is_read=False,
                pages=window.pages - 1,
                batch=None,
            )
            ids = list(window.batch.ids)
            for start in range(0, len(ids), _NAMES_A_QUERY):
                connection.execute(
                    delete(TAKEN).where(
                        TAKEN.c.stream == lease.stream,
                        TAKEN.c.record_id.in_(ids[start : start + _NAMES_A_QUERY]),
                    )
                )
            _update(connection, stored)
        return stored

    def rewind(self, lease: StreamLease, window: Window, *, since_at: datetime | None) -> Window:
        """Read the window from here, because the source no longer knows the position."""
        stored = replace(window, since_at=since_at, position=None, is_read=False)
        with self._cursors.leased(lease) as connection:
            _update(connection, stored)
        return stored

    def finish(
        self,
        lease: StreamLease,
        window: Window,
        arrival: Arrival,
        *,
        cursor: str | None,
        forget_before_at: datetime | None,
    ) -> Window:
        """All has arrived: move the cursor and forget the window.

        Args:
            lease: Ours.
            window: As it was stored last.
            arrival: What became of the batch in hand.
            cursor: Where the cursor goes; None if it stays.
            forget_before_at: As in `PageTaken`.

        Returns:
            The window as it ended.
        """
        now = self._cursors.clock()
        moved = {} if cursor is None else {"value": cursor, "advanced_at": now}
        with self._cursors.leased(lease, **moved) as connection:
            _note_rejects(connection, lease, window, arrival.rejects, now)
            connection.execute(delete(WINDOWS).where(WINDOWS.c.id == window.id))
            if forget_before_at is not None:
                _forget_before(connection, lease.stream, forget_before_at)
            connection.execute(
                delete(REJECTS).where(
                    REJECTS.c.stream == lease.stream, REJECTS.c.noted_at < now - _REJECTS_KEPT
                )
            )
        return replace(window, counts=window.counts + arrival.counts, batch=None, is_read=True)

    def rejects(self, window: Window, *, limit: int) -> list[RejectedRecord]:
        """Records of a window, also of an ended one, that were not imported; the first ones."""
        query = (
            select(REJECTS)
            .where(REJECTS.c.window_id == window.id)
            .order_by(REJECTS.c.id)
            .limit(limit)
        )
        with reading(self._cursors.engine) as connection:
            return [_reject(row) for row in connection.execute(query)]

    def latest_rejects(self, *, limit: int) -> list[tuple[str, RejectedRecord]]:
        """Stream and record of the rejects of the last 30 days, newest first."""
        query = select(REJECTS).order_by(REJECTS.c.id.desc()).limit(limit)
        with reading(self._cursors.engine) as connection:
            return [(row.stream, _reject(row)) for row in connection.execute(query)]


def _find(connection: Connection, stream: str, name: str) -> Row[Any] | None:
    query = select(WINDOWS).where(WINDOWS.c.stream == stream, WINDOWS.c.name == name)
    return connection.execute(query).one_or_none()


def _update(connection: Connection, window: Window, **values: Any) -> None:
    batch = window.batch
    connection.execute(
        update(WINDOWS)
        .where(WINDOWS.c.id == window.id)
        .values(
            since_at=window.since_at,
            position=_written(window.position),
            is_read=window.is_read,
            newest_at=window.newest_at,
            pages=window.pages,
            records=window.counts.records,
            known=window.counts.known,
            rejected=window.counts.rejected,
            created=window.counts.created,
            updated=window.counts.updated,
            unchanged=window.counts.unchanged,
            batch_key=batch.key if batch else None,
            batch=batch.records if batch else None,
            batch_ids=json.dumps(batch.ids).encode() if batch else None,
            **values,
        )
    )


def _remember(connection: Connection, stream: str, taken: Iterable[TakenRecord]) -> None:
    rows = {record.id: {"stream": stream, **_columns(record)} for record in taken}
    if rows:
        statement = insert_for(connection, TAKEN)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["stream", "record_id"],
                set_={
                    "digest": statement.excluded.digest,
                    "changed_at": statement.excluded.changed_at,
                },
            ),
            list(rows.values()),
        )


def _columns(record: TakenRecord) -> dict[str, Any]:
    return {"record_id": record.id, "digest": record.digest, "changed_at": record.changed_at}


def _forget_before(connection: Connection, stream: str, at: datetime) -> None:
    connection.execute(delete(TAKEN).where(TAKEN.c.stream == stream, TAKEN.c.changed_at < at))


def _note_rejects(
    connection: Connection,
    lease: StreamLease,
    window: Window,
    rejects: Sequence[RejectedRecord],
    now: datetime,
) -> None:
    if rejects:
        connection.execute(
            insert(REJECTS),
            [
                {
                    "stream": lease.stream,
                    "window_id": window.id,
                    "record_id": reject.id,
                    "changed_at": reject.changed_at,
                    "field": reject.field[:200],
                    "reason": reject.reason,
                    "noted_at": now,
                }
                for reject in rejects
            ],
        )


def _reject(row: Row[Any]) -> RejectedRecord:
    return RejectedRecord(row.record_id, row.field, row.reason, changed_at=row.changed_at)


def _window(row: Row[Any]) -> Window:
    batch = None
    if row.batch_key is not None:
        batch = Batch(row.batch_key, row.batch, tuple(json.loads(row.batch_ids)))
    return Window(
        id=row.id,
        name=row.name,
        since_at=row.since_at,
        until_at=row.until_at,
        opened_at=row.opened_at,
        position=_read(row.position),
        is_read=row.is_read,
        newest_at=row.newest_at,
        pages=row.pages,
        counts=Counts(
            row.records, row.known, row.rejected, row.created, row.updated, row.unchanged
        ),
        batch=batch,
    )


def _written(position: Any) -> str | None:
    return None if position is None else json.dumps(position)


def _read(written: str | None) -> Any:
    return None if written is None else json.loads(written)
