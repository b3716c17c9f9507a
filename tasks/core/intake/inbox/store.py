"""Hands deliveries out and takes their outcomes: each has one owner at a time.

    queued ──► received ──► leased ──► done | ignored | dead-lettered | cancelled
                  ▲            ├──────► failed ──► leased …   (from retry_at on)
                  └────────────┴── handed over to another integration; released

A delivery is leased: when the lease runs out others may take it, and the late owner's
outcome is refused. `queued` is a delivery that waits for an earlier one of its ordering key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, bindparam, select, update

from blocks.errors import PermanentError
from tasks.core.intake.inbox.delivery import Delivery
from tasks.core.intake.inbox.ordering import promote_heads, take_turns
from tasks.core.intake.inbox.request_ending import Ending, end_requests
from tasks.core.intake.inbox.rows import LeaseOwner, reopen, take
from tasks.core.intake.inbox.settlement import Settlement
from tasks.core.intake.inbox.storage_errors import storage_errors
from tasks.core.intake.inbox.tables import DELIVERIES
from tasks.core.state.database import reading, writing
from tasks.core.state.leases import utc_now

_COLUMNS = DELIVERIES.c


class LeasesLostError(PermanentError):
    """The lease had run out: somebody else decides what becomes of these deliveries.

    Attributes:
        ids: The deliveries whose outcome was refused; those of the others are stored.
    """

    def __init__(
        self,
        message: str,
        *,
        system: str,
        operation: str,
        record: str | None = None,
        ids: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, system=system, operation=operation, record=record)
        self.ids = ids


class Inbox:
    """What flows need of the inbox.

    Example:
        >>> inbox = Inbox(open_database())
        >>> for delivery in inbox.lease("orders", LeaseOwner("run 1"), limit=10):
        ...     inbox.settle([Settlement(delivery, "done")])

    Args:
        engine: From `tasks.core.state.database.open_database`.
        clock: Gives the present as an aware instant. The clocks of machines that share an
            inbox must agree to well within a lease.

    Attributes:
        has_results_to_send: Something was settled whose result waits to be sent to a callback.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock
        self.has_results_to_send = False
        # Closing a SQLite file's last connection copies its whole log back; so one stays open.
        self._keeper = engine.connect() if engine.dialect.name == "sqlite" else None

    def close(self) -> None:
        """Give back the connections."""
        if self._keeper is not None:
            self._keeper.close()
        self._engine.dispose()

    def has_due(self, integration: str) -> bool:
        """Whether something may be leased; cheap enough to ask twenty times a second."""
        with storage_errors("look"), reading(self._engine) as connection:
            return connection.execute(_due(integration, self._clock(), 1)).first() is not None

    def lease(
        self,
        integration: str,
        owner: LeaseOwner,
        *,
        limit: int,
        max_bytes: int = 32 * 1024 * 1024,
        may_be_lapsed: bool = True,
        endpoint: str | None = None,
    ) -> list[Delivery]:
        """Lease what is due, the longest due first.

        A delivery whose last lease lapsed may have killed its process, so it is leased alone,
        and only if the caller holds nothing that it could take along.

        Args:
            integration: Whose deliveries.
            owner: Who leases, and for how long.
            limit: At most so many, 1 to 500.
            max_bytes: Stop before the payloads together exceed this; the first always goes.
            may_be_lapsed: The caller holds no other delivery.
            endpoint: Only what came in there.
        """
        if not self.has_due(integration):
            return []
        now = self._clock()
        with storage_errors("lease"), writing(self._engine) as connection:
            statement = _due(integration, now, limit).with_for_update(skip_locked=True)
            if endpoint is not None:
                statement = statement.where(_COLUMNS.endpoint == endpoint)
            chosen: list[Row[Any]] = []
            size_bytes = 0
            for row in connection.execute(statement):
                is_lapsed = row.status == "leased"
                size_bytes += row.size_bytes
                if chosen and (is_lapsed or size_bytes > max_bytes):
                    break
                if is_lapsed and not may_be_lapsed:
                    break
                chosen.append(row)
                if is_lapsed:
                    break
            return take(connection, chosen, owner, now)

    def extend(self, deliveries: Sequence[Delivery], owner: LeaseOwner) -> list[Delivery]:
        """Renew the lease.

        Returns:
            Those whose lease had run out already; they are lost.
        """
        now = self._clock()
        with storage_errors("extend"), writing(self._engine) as connection:
            held = _still_held(connection, deliveries, now)
            connection.execute(
                update(DELIVERIES)
                .where(_COLUMNS.id.in_(held))
                .values(due_at=now + timedelta(seconds=owner.lease_s))
            )
        return [each for each in deliveries if each.id not in held]

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Store how handling ended, all in one transaction.

        Raises:
            LeasesLostError: Some of the leases had run out; the other outcomes are stored.
        """
        now = self._clock()
        with storage_errors("settle"), writing(self._engine) as connection:
            _take_turns(connection, settlements)
            held = _still_held(connection, [each.delivery for each in settlements], now)
            valid = [each for each in settlements if each.delivery.id in held]
            if valid:
                connection.execute(_SETTLE, [_settled_values(each, now) for each in valid])
            promote_heads(connection, _vacated(valid, now))
            endings = [ending for each in valid if (ending := _ending(each)) is not None]
            self.has_results_to_send |= bool(endings) and end_requests(connection, endings, now)
        lost = tuple(each.delivery.id for each in settlements if each.delivery.id not in held)
        if lost:
            raise LeasesLostError(
                f"the lease of {len(lost)} deliveries had run out; their outcomes were not "
                "stored, another run decides about them",
                system="inbox",
                operation="settle",
                record=lost[0],
                ids=lost,
            )

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give back what was not handled: due at once, and the attempt does not count."""
        now = self._clock()
        with storage_errors("release"), writing(self._engine) as connection:
            held = _still_held(connection, deliveries, now)
            connection.execute(
                update(DELIVERIES)
                .where(_COLUMNS.id.in_(held))
                .values(status="received", due_at=now, attempts=_COLUMNS.attempts - 1)
            )

    def unfinished_of_run(self, run_id: str) -> list[str]:
        """Ids of what this run failed to handle and nobody has taken since, in order."""
        with storage_errors("look"), reading(self._engine) as connection:
            found = connection.execute(
                select(_COLUMNS.id)
                .where(
                    _COLUMNS.leased_by == run_id,
                    _COLUMNS.status.in_(["leased", "failed", "dead_letter"]),
                )
                .order_by(_COLUMNS.seq)
            )
            return list(found.scalars())

    def lease_again(self, ids: Sequence[str], owner: LeaseOwner) -> list[Delivery]:
        """Lease what this run failed to handle, whatever its retry time; attempts start anew.

        One that may not overtake another of its ordering key is queued behind it instead.
        """
        now = self._clock()
        mine = select(DELIVERIES).where(
            _COLUMNS.id.in_(ids),
            _COLUMNS.leased_by == owner.run_id,
            _COLUMNS.status.in_(["leased", "failed", "dead_letter", "received"]),
        )
        with storage_errors("lease again"), writing(self._engine) as connection:
            keyed = connection.execute(mine.where(_COLUMNS.ordering_key.is_not(None))).all()
            take_turns(connection, {row.integration for row in keyed})
            seqs = [row.seq for row in connection.execute(mine.with_for_update())]
            reopen(connection, seqs, now)
            ready = connection.execute(mine.where(_COLUMNS.due_at <= now)).all()
            return take(connection, ready, owner, now)


_SETTLE = (
    update(DELIVERIES)
    .where(_COLUMNS.id == bindparam("of_id"))
    .values(
        integration=bindparam("new_integration"),
        status=bindparam("new_status"),
        due_at=bindparam("new_due_at"),
        attempts=bindparam("new_attempts"),
        reason=bindparam("new_reason"),
        settled_at=bindparam("new_settled_at"),
    )
)


def _settled_values(settlement: Settlement, now: datetime) -> dict[str, Any]:
    delivery = settlement.delivery
    values = {
        "of_id": delivery.id,
        "new_integration": delivery.integration,
        "new_status": settlement.status,
        "new_due_at": settlement.retry_at,
        "new_attempts": delivery.attempt,
        "new_reason": settlement.reason or None,
        "new_settled_at": None if settlement.status == "failed" else now,
    }
    if settlement.integration is not None:
        is_ordered = delivery.ordering_key is not None
        values |= {
            "new_integration": settlement.integration,
            "new_status": "queued" if is_ordered else "received",
            "new_due_at": None if is_ordered else now,
            "new_attempts": 0,
            "new_settled_at": None,
        }
    return values


def _ending(settlement: Settlement) -> Ending | None:
    if settlement.reply is None:
        return None
    states = {"dead_letter": "failed", "cancelled": "cancelled"}
    state = states.get(settlement.status, "done")
    return Ending(settlement.delivery.id, state, settlement.reply)


def _take_turns(connection: Connection, settlements: Iterable[Settlement]) -> None:
    ordered = [each for each in settlements if each.delivery.ordering_key is not None]
    take_turns(
        connection,
        {each.delivery.integration for each in ordered}
        | {each.integration for each in ordered if each.integration is not None},
    )


def _vacated(settlements: Iterable[Settlement], now: datetime) -> dict[tuple[str, str], datetime]:
    keys = {}
    for settlement in settlements:
        key = settlement.delivery.ordering_key
        if key is not None and settlement.status != "failed":
            keys[settlement.delivery.integration, key] = now
            if settlement.integration is not None:
                keys[settlement.integration, key] = now
    return keys


def _due(integration: str, now: datetime, limit: int) -> Select[Any]:
    return (
        select(_COLUMNS.seq, _COLUMNS.status, _COLUMNS.size_bytes)
        .where(_COLUMNS.integration == integration, _COLUMNS.due_at <= now)
        .order_by(_COLUMNS.due_at, _COLUMNS.seq)
        .limit(limit)
    )


def _still_held(connection: Connection, deliveries: Sequence[Delivery], now: datetime) -> set[str]:
    lease_tokens = {each.id: each.lease_token for each in deliveries}
    rows = connection.execute(
        select(_COLUMNS.id, _COLUMNS.lease_token)
        .where(_COLUMNS.id.in_(lease_tokens), _COLUMNS.status == "leased", _COLUMNS.due_at > now)
        .with_for_update()
    )
    return {row.id for row in rows if row.lease_token == lease_tokens[row.id]}
