"""Ends requests in the transaction that settles their deliveries: both are stored, or neither.

Whoever has hung up and left an address for the result gets it as a delivery of its own, to the
integration `callbacks`: with retries, dead letter and replay like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, Row, bindparam, select, text, update

from tasks.core.intake.inbox.committer import insert_deliveries
from tasks.core.intake.inbox.new_delivery import NewDelivery
from tasks.core.intake.inbox.reply import Reply
from tasks.core.intake.inbox.reply_tables import AWAITED_REQUESTS

CALLBACKS = "callbacks"
CALLBACK_EVENT = "request.ended"
ENDED_CHANNEL = "synchronous_requests_ended"
_COLUMNS = AWAITED_REQUESTS.c


@dataclass(frozen=True, slots=True)
class Ending:
    """How the request of one delivery ended.

    Attributes:
        delivery_id: The delivery.
        state: "done", "failed" or "cancelled".
        reply: What its caller gets.
    """

    delivery_id: str
    state: str
    reply: Reply


def end_requests(connection: Connection, endings: Sequence[Ending], now: datetime) -> bool:
    """Store the answers and wake whoever waits for them.

    Args:
        connection: In the transaction that settles the deliveries.
        endings: A delivery that is no request is passed over.
        now: From when they are kept.

    Returns:
        Whether a result has to be sent to a callback address.
    """
    by_delivery = {each.delivery_id: each for each in endings}
    rows = connection.execute(
        select(AWAITED_REQUESTS).where(_COLUMNS.delivery_id.in_(by_delivery)).with_for_update()
    ).all()
    if not rows:
        return False
    connection.execute(_END, [_values(row, by_delivery[row.delivery_id], now) for row in rows])
    if connection.dialect.name == "postgresql":
        connection.execute(
            text(f"SELECT pg_notify('{ENDED_CHANNEL}', :id)"), [{"id": row.id} for row in rows]
        )
    wanted = [row for row in rows if row.callback_wanted and row.callback is not None]
    send_back(connection, wanted, now)
    return bool(wanted)


def send_back(connection: Connection, requests: Sequence[Row[Any]], now: datetime) -> None:
    """Have the results of these requests sent to their callback addresses."""
    if requests:
        insert_deliveries(connection, [[_callback(row, now)] for row in requests])


def _callback(request: Row[Any], now: datetime) -> NewDelivery:
    # not the address, which may hold a token: deliveries are shown to operators
    body = orjson.dumps({"request": request.id})
    return NewDelivery(
        integration=CALLBACKS,
        endpoint=request.endpoint,
        event=CALLBACK_EVENT,
        # a request that is handled anew after a replay has another result to be sent
        dedup_key=f"callback:{request.id}:{now.timestamp()}",
        ordering_key=None,
        headers=b"[]",
        body=body,
        payload=None,
        content_type="application/json",
        received_at=now,
    )


_END = (
    update(AWAITED_REQUESTS)
    .where(_COLUMNS.id == bindparam("of_id"))
    .values(
        state=bindparam("new_state"),
        ended_at=bindparam("new_ended_at"),
        expires_at=bindparam("new_expires_at"),
        status=bindparam("new_status"),
        headers=bindparam("new_headers"),
        body=bindparam("new_body"),
    )
)


def _values(request: Row[Any], ending: Ending, now: datetime) -> Mapping[str, Any]:
    reply = ending.reply
    headers = list(reply.headers)
    if reply.content_type is not None:
        headers.append(("Content-Type", reply.content_type))
    return {
        "of_id": request.id,
        "new_state": ending.state,
        "new_ended_at": now,
        "new_expires_at": now + timedelta(seconds=request.keep_s),
        "new_status": reply.status,
        "new_headers": orjson.dumps(headers).decode(),
        "new_body": reply.body,
    }
