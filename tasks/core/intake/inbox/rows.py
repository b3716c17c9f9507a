"""Changes and reads delivery rows within a transaction that the caller has opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select, update

from tasks.core.intake.inbox.delivery import Delivery
from tasks.core.intake.inbox.ordering import promote_heads
from tasks.core.intake.inbox.tables import DELIVERIES, PAYLOADS, REQUESTS

_COLUMNS = DELIVERIES.c
_WITH_CONTENT = (
    select(
        DELIVERIES,
        REQUESTS.c.headers,
        REQUESTS.c.body,
        REQUESTS.c.content_type,
        PAYLOADS.c.payload,
    )
    .join(REQUESTS, REQUESTS.c.id == _COLUMNS.request_id)
    .outerjoin(PAYLOADS, PAYLOADS.c.delivery_id == _COLUMNS.id)
)


@dataclass(frozen=True, slots=True)
class LeaseOwner:
    """Who leases, and for how long at a time.

    Attributes:
        run_id: The flow run; a retry of it finds what it failed to handle by this.
        lease_s: Seconds until others may take over, unless extended.
    """

    run_id: str
    lease_s: float = 30.0


def take(
    connection: Connection, rows: Sequence[Row[Any]], owner: LeaseOwner, now: datetime
) -> list[Delivery]:
    """Lease these rows, in a transaction that has locked them.

    Args:
        connection: In that transaction.
        rows: With `seq` and `status` as they are.
        owner: Who leases, and for how long.
        now: From when the lease counts.
    """
    if not rows:
        return []
    lapsed = {row.seq for row in rows if row.status == "leased"}
    seqs = [row.seq for row in rows]
    connection.execute(
        update(DELIVERIES)
        .where(_COLUMNS.seq.in_(seqs))
        .values(
            status="leased",
            due_at=now + timedelta(seconds=owner.lease_s),
            attempts=_COLUMNS.attempts + 1,
            lease_token=_COLUMNS.lease_token + 1,
            leased_by=owner.run_id,
        )
    )
    found = {
        row.seq: row for row in connection.execute(_WITH_CONTENT.where(_COLUMNS.seq.in_(seqs)))
    }
    return [_delivery(found[seq], lapsed=seq in lapsed) for seq in seqs]


def reopen(
    connection: Connection, seqs: Sequence[int], now: datetime, *, new_effects: bool = False
) -> None:
    """Make deliveries due at once with fresh attempts, the ordered ones in their turn.

    Args:
        connection: In a transaction that has called `take_turns` for the ordered ones.
        seqs: At most 500.
        now: From when they are due.
        new_effects: Give them a new idempotency key.
    """
    fresh = {"attempts": 0, "settled_at": None}
    if new_effects:
        fresh["generation"] = _COLUMNS.generation + 1  # type: ignore[assignment]
    chosen = update(DELIVERIES).where(_COLUMNS.seq.in_(seqs))
    connection.execute(
        chosen.where(_COLUMNS.ordering_key.is_(None)).values(status="received", due_at=now, **fresh)
    )
    queued = connection.execute(
        chosen.where(_COLUMNS.ordering_key.is_not(None))
        .values(status="queued", due_at=None, **fresh)
        .returning(_COLUMNS.integration, _COLUMNS.ordering_key)
    )
    promote_heads(connection, {(row.integration, row.ordering_key): now for row in queued})


def with_content(connection: Connection, criteria: Sequence[ColumnElement[bool]]) -> list[Delivery]:
    """Deliveries as handlers get them, without claiming them."""
    rows = connection.execute(_WITH_CONTENT.where(*criteria).order_by(_COLUMNS.seq))
    return [_delivery(row, lapsed=False) for row in rows]


def _delivery(row: Row[Any], *, lapsed: bool) -> Delivery:
    return Delivery(
        id=row.id,
        integration=row.integration,
        endpoint=row.endpoint,
        event=row.event,
        content_type=row.content_type,
        raw_headers=row.headers,
        body=row.body,
        payload=row.body if row.payload is None else row.payload,
        received_at=row.received_at,
        attempt=row.attempts,
        ordering_key=row.ordering_key,
        generation=row.generation,
        lease_token=row.lease_token,
        lapsed=lapsed,
    )
