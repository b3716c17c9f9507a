"""What operators do with the inbox: look, replay, purge. Each first tells what it would touch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, delete, func, select

from blocks.errors import MisconfiguredError, PermanentError
from tasks.core.intake.inbox.delivery import Delivery
from tasks.core.intake.inbox.ordering import take_turns
from tasks.core.intake.inbox.reply_tables import AWAITED_REQUESTS, REMEMBERED_S
from tasks.core.intake.inbox.rows import reopen, with_content
from tasks.core.intake.inbox.storage_errors import storage_errors
from tasks.core.intake.inbox.tables import DELIVERIES, PAYLOADS, REQUESTS
from tasks.core.state.database import reading, writing
from tasks.core.state.leases import utc_now

STATUSES = ("queued", "received", "leased", "failed", "dead_letter", "done", "ignored", "cancelled")
UNEVENTFUL = ("done", "ignored", "cancelled")
_CHUNK = 500  # rows a transaction, so that the gateway never waits long for the write lock
_COLUMNS = DELIVERIES.c


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries are meant; every criterion that is given must hold.

    Attributes:
        ids: Delivery ids.
        integration: Whose.
        endpoint: Where they came in.
        statuses: Of `STATUSES`.
        received_from_at: Aware instant, inclusive.
        received_until_at: Aware instant, exclusive.
        limit: The oldest so many.
    """

    ids: tuple[str, ...] = ()
    integration: str | None = None
    endpoint: str | None = None
    statuses: tuple[str, ...] = ()
    received_from_at: datetime | None = None
    received_until_at: datetime | None = None
    limit: int = 10_000

    def __post_init__(self) -> None:
        unknown = set(self.statuses) - set(STATUSES)
        if unknown:
            raise MisconfiguredError(
                f"there is no status {', '.join(sorted(unknown))}; there are {', '.join(STATUSES)}",
                system="inbox",
                operation="select",
            )

    @property
    def is_everything(self) -> bool:
        """No criterion is given."""
        return not any(
            (
                self.ids,
                self.integration,
                self.endpoint,
                self.statuses,
                self.received_from_at,
                self.received_until_at,
            )
        )


@dataclass(frozen=True, slots=True)
class DeliverySummary:
    """One delivery as lists show it; without its content."""

    id: str
    integration: str
    endpoint: str
    event: str
    status: str
    attempts: int
    reason: str | None
    size_bytes: int
    received_at: datetime
    leased_by: str | None


class InboxOperations:
    """Looks at deliveries and moves them; safe beside running consumers."""

    def __init__(self, engine: Engine, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def select(self, selection: DeliveryFilter) -> list[DeliverySummary]:
        """The selected deliveries, oldest first."""
        with storage_errors("list"), reading(self._engine) as connection:
            statement = (
                select(DELIVERIES)
                .where(*_criteria(selection))
                .order_by(_COLUMNS.seq)
                .limit(selection.limit)
            )
            return [_summary(row) for row in connection.execute(statement)]

    def counts(self) -> dict[tuple[str, str], int]:
        """(integration, status) to the number of deliveries."""
        with storage_errors("count"), reading(self._engine) as connection:
            found = connection.execute(
                select(_COLUMNS.integration, _COLUMNS.status, func.count()).group_by(
                    _COLUMNS.integration, _COLUMNS.status
                )
            )
            return {(integration, status): count for integration, status, count in found}

    def read(self, id: str) -> Delivery:  # noqa: A002
        """One delivery with its content.

        Raises:
            PermanentError: There is none of that id; it may have been purged.
        """
        with storage_errors("read"), reading(self._engine) as connection:
            found = with_content(connection, [_COLUMNS.id == id])
        if not found:
            raise PermanentError(
                "there is no such delivery; it may have been purged",
                system="inbox",
                operation="read",
                record=id,
            )
        return found[0]

    def replay(
        self, selection: DeliveryFilter, *, dry_run: bool, new_effects: bool = False
    ) -> list[DeliverySummary]:
        """Have deliveries handled again; what a run holds right now is left alone.

        The deliveries keep their ids and, unless `new_effects`, their idempotency keys:
        what they already effected is not repeated, what is missing is made up for.

        Args:
            selection: At least one criterion.
            dry_run: Only tell which.
            new_effects: Have the effects once more even where they were completed.

        Returns:
            The deliveries as they were before.

        Raises:
            MisconfiguredError: No criterion was given.
        """
        if selection.is_everything:
            raise MisconfiguredError(
                "say which deliveries: by id, integration, endpoint, status or time",
                system="inbox",
                operation="replay",
            )
        now = self._clock()
        not_held = (_COLUMNS.status != "leased") | (_COLUMNS.due_at <= now)
        with storage_errors("replay"), reading(self._engine) as connection:
            rows = connection.execute(
                select(DELIVERIES)
                .where(*_criteria(selection), not_held)
                .order_by(_COLUMNS.seq)
                .limit(selection.limit)
            ).all()
        if not dry_run:
            for chunk in _chunks(rows):
                with storage_errors("replay"), writing(self._engine) as connection:
                    take_turns(connection, {row.integration for row in chunk if row.ordering_key})
                    free = connection.execute(
                        select(_COLUMNS.seq)
                        .where(_COLUMNS.seq.in_([row.seq for row in chunk]), not_held)
                        .with_for_update()
                    )
                    reopen(connection, list(free.scalars()), now, new_effects=new_effects)
        return [_summary(row) for row in rows]

    def purge(
        self,
        *,
        settled_before_at: datetime,
        statuses: tuple[str, ...] = UNEVENTFUL,
        dry_run: bool,
    ) -> int:
        """Delete finished deliveries with their content.

        A purged delivery is forgotten: if its sender sends it again it is handled again, with
        the same id. So keep them longer than any sender retries. One whose caller can still ask
        for its result stays, however old.

        Args:
            settled_before_at: Aware instant.
            statuses: Of done, ignored, cancelled, dead-lettered.
            dry_run: Only count.

        Returns:
            How many deliveries.

        Raises:
            MisconfiguredError: A status that is not final.
        """
        if not set(statuses) <= {*UNEVENTFUL, "dead_letter"}:
            raise MisconfiguredError(
                "only done, ignored, cancelled and dead-lettered deliveries can be purged",
                system="inbox",
                operation="purge",
            )
        remembered_from = self._clock() - timedelta(seconds=REMEMBERED_S)
        old = (
            (_COLUMNS.settled_at < settled_before_at)
            & _COLUMNS.status.in_(statuses)
            & ~select(1)
            .where(
                AWAITED_REQUESTS.c.delivery_id == _COLUMNS.id,
                AWAITED_REQUESTS.c.expires_at > remembered_from,
            )
            .exists()
        )
        if dry_run:
            with storage_errors("purge"), reading(self._engine) as connection:
                return connection.execute(
                    select(func.count()).select_from(DELIVERIES).where(old)
                ).scalar_one()
        purged = 0
        while True:
            deleted = self._purge_chunk(old)
            purged += deleted
            if deleted < _CHUNK:
                return purged

    def _purge_chunk(self, old: ColumnElement[bool]) -> int:
        with storage_errors("purge"), writing(self._engine) as connection:
            rows = connection.execute(
                select(_COLUMNS.seq, _COLUMNS.id, _COLUMNS.request_id)
                .where(old)
                .limit(_CHUNK)
                .with_for_update()
            ).all()
            ids = [row.id for row in rows]
            connection.execute(delete(PAYLOADS).where(PAYLOADS.c.delivery_id.in_(ids)))
            asked = AWAITED_REQUESTS.c.delivery_id
            connection.execute(delete(AWAITED_REQUESTS).where(asked.in_(ids)))
            connection.execute(
                delete(DELIVERIES).where(_COLUMNS.seq.in_([row.seq for row in rows]))
            )
            connection.execute(
                delete(REQUESTS).where(
                    REQUESTS.c.id.in_({row.request_id for row in rows}),
                    ~select(1).where(_COLUMNS.request_id == REQUESTS.c.id).exists(),
                )
            )
            return len(rows)


def _criteria(selection: DeliveryFilter) -> list[ColumnElement[bool]]:
    criteria: list[ColumnElement[bool]] = []
    if selection.ids:
        criteria.append(_COLUMNS.id.in_(selection.ids))
    if selection.integration is not None:
        criteria.append(_COLUMNS.integration == selection.integration)
    if selection.endpoint is not None:
        criteria.append(_COLUMNS.endpoint == selection.endpoint)
    if selection.statuses:
        criteria.append(_COLUMNS.status.in_(selection.statuses))
    if selection.received_from_at is not None:
        criteria.append(_COLUMNS.received_at >= selection.received_from_at)
    if selection.received_until_at is not None:
        criteria.append(_COLUMNS.received_at < selection.received_until_at)
    return criteria


def _chunks(rows: Sequence[Row[Any]]) -> Iterator[Sequence[Row[Any]]]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]


def _summary(row: Row[Any]) -> DeliverySummary:
    return DeliverySummary(
        id=row.id,
        integration=row.integration,
        endpoint=row.endpoint,
        event=row.event,
        status=row.status,
        attempts=row.attempts,
        reason=row.reason,
        size_bytes=row.size_bytes,
        received_at=row.received_at,
        leased_by=row.leased_by,
    )
