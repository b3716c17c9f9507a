"""The requests that callers wait for, as gateway and flows see them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Engine, Row, delete, select, update

from tasks.core.intake.inbox.reply import Reply
from tasks.core.intake.inbox.reply_tables import AWAITED_REQUESTS, REMEMBERED_S
from tasks.core.intake.inbox.request_ending import send_back
from tasks.core.intake.inbox.storage_errors import storage_errors
from tasks.core.intake.inbox.tables import DELIVERIES
from tasks.core.state.database import reading, writing
from tasks.core.state.leases import utc_now

_COLUMNS = AWAITED_REQUESTS.c
_UNENDED = {"queued": "waiting", "received": "waiting", "leased": "running", "failed": "waiting"}
PURGED_AT_A_TIME = 500
_ENDED_SQLITE = (
    "SELECT id FROM awaited_requests WHERE ended_at IS NOT NULL "
    "AND id IN (SELECT value FROM json_each(?))"
)
_ENDED_POSTGRESQL = "SELECT id FROM awaited_requests WHERE ended_at IS NOT NULL AND id = ANY(%s)"


@dataclass(frozen=True, slots=True)
class CallbackTarget:
    """Where a result goes whose caller has hung up.

    Attributes:
        url: The address.
        signed_by: Slug of the block with the secret that signs.
        location: Where the request's status is found, as its caller sees it.
        allowed_networks: Networks that it may lead to although they are private, and without
            TLS; CIDR.
    """

    url: str
    signed_by: str
    location: str
    allowed_networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a request is.

    Attributes:
        message: What the caller reads.
        percent: 0 to 100; None if that is not known.
    """

    message: str
    percent: float | None = None


@dataclass(frozen=True, slots=True)
class RequestView:
    """One request as it stands.

    Attributes:
        id: Cannot be guessed; the key to its result.
        digest: Of what was asked.
        state: "waiting", "running", "done", "failed", "cancelled", or "expired" when its result
            is not kept any more.
        received_at: Aware UTC instant.
        ended_at: Aware UTC instant; None before.
        expires_at: Until when the result is kept; None before it has ended.
        run_id: The flow run that took it last; None if none has.
        progress: As the flow told it last.
        reply: Once it has ended and until it expires.
        callback: Where the result goes if its caller has hung up; None if nowhere.
    """

    id: str
    digest: str
    state: str
    received_at: datetime
    ended_at: datetime | None
    expires_at: datetime | None
    run_id: str | None
    progress: Progress | None
    reply: Reply | None
    callback: CallbackTarget | None = None


def new_request_id() -> str:
    """192 random bits, safe in a URL."""
    return secrets.token_urlsafe(24)


def request_row(
    *,
    id: str,  # noqa: A002
    delivery_id: str,
    endpoint: str,
    digest: str,
    keep_s: int,
    received_at: datetime,
    callback: CallbackTarget | None,
    callback_wanted: bool,
) -> dict[str, Any]:
    """The row to store beside a new delivery."""
    return {
        "id": id,
        "delivery_id": delivery_id,
        "endpoint": endpoint,
        "digest": digest,
        "keep_s": keep_s,
        "received_at": received_at,
        "is_shared": False,
        "callback": None if callback is None else json.dumps(asdict(callback)),
        "callback_wanted": callback_wanted,
    }


class Requests:
    """Looks requests up and changes what is theirs; answers come with `Inbox.settle`."""

    def __init__(self, engine: Engine, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def read(self, request_id: str) -> RequestView | None:
        """One request, None if there is none of that id."""
        return self._view(_COLUMNS.id == request_id)

    def of_delivery(self, delivery_id: str) -> RequestView | None:
        """The request that this delivery is; None if it is none, or was forgotten."""
        return self._view(_COLUMNS.delivery_id == delivery_id)

    def ended_among(self, ids: Collection[str]) -> set[str]:
        """Those that have ended; cheap enough to ask forty times a second."""
        with storage_errors("look"), reading(self._engine) as connection:
            if connection.dialect.name == "postgresql":
                found = connection.exec_driver_sql(_ENDED_POSTGRESQL, (list(ids),))
            else:
                found = connection.exec_driver_sql(_ENDED_SQLITE, (json.dumps(list(ids)),))
            return set(found.scalars())

    def share(self, request_id: str) -> None:
        """One more caller waits for it: it is not cancelled any more when one of them leaves."""
        self._update(request_id, is_shared=True)

    def cancel(self, request_id: str, *, even_if_shared: bool = False) -> bool:
        """Ask for it to be cancelled.

        Returns:
            False if it has ended, is shared, or is not there.
        """
        criteria = [_COLUMNS.id == request_id, _COLUMNS.ended_at.is_(None)]
        if not even_if_shared:
            criteria.append(_COLUMNS.is_shared.is_(False))
        with storage_errors("cancel"), writing(self._engine) as connection:
            done = connection.execute(
                update(AWAITED_REQUESTS).where(*criteria).values(cancel_requested_at=self._clock())
            )
            return done.rowcount > 0

    def cancelled_among(self, delivery_ids: Collection[str]) -> set[str]:
        """Of these deliveries, those whose request shall be cancelled and has not ended."""
        with storage_errors("look"), reading(self._engine) as connection:
            found = connection.execute(
                select(_COLUMNS.delivery_id).where(
                    _COLUMNS.delivery_id.in_(delivery_ids),
                    _COLUMNS.cancel_requested_at.is_not(None),
                    _COLUMNS.ended_at.is_(None),
                )
            )
            return set(found.scalars())

    def hang_up(self, request_id: str, *, was_told: bool) -> bool:
        """Its caller does not wait any more: send the result to its callback, if it has one.

        Args:
            request_id: The request.
            was_told: The caller will be told where to look, so that it can be given the answer
                instead if there is one by now.

        Returns:
            Whether it has ended already.
        """
        now = self._clock()
        with storage_errors("hang up"), writing(self._engine) as connection:
            row = connection.execute(
                select(AWAITED_REQUESTS).where(_COLUMNS.id == request_id).with_for_update()
            ).first()
            if row is None or row.callback is None:
                return row is not None and row.ended_at is not None
            if row.ended_at is None:
                connection.execute(
                    update(AWAITED_REQUESTS)
                    .where(_COLUMNS.id == request_id)
                    .values(callback_wanted=True)
                )
                return False
            if not was_told:
                send_back(connection, [row], now)
            return True

    def tell_progress(self, progress: Mapping[str, Progress]) -> None:
        """Store how far requests are.

        Args:
            progress: Delivery id to progress.
        """
        with storage_errors("tell progress"), writing(self._engine) as connection:
            for delivery_id, each in progress.items():
                connection.execute(
                    update(AWAITED_REQUESTS)
                    .where(_COLUMNS.delivery_id == delivery_id, _COLUMNS.ended_at.is_(None))
                    .values(progress=orjson.dumps(each).decode())
                )

    def purge(self) -> int:
        """Forget results that have expired, at most so many at a time; returns how many.

        That there was a request is remembered for a day longer, so that its caller is told that
        the result is gone and not that it never was.
        """
        now = self._clock()
        with storage_errors("purge"), writing(self._engine) as connection:
            expired = list(
                connection.execute(
                    select(_COLUMNS.id)
                    .where(_COLUMNS.expires_at <= now, _COLUMNS.status.is_not(None))
                    .limit(PURGED_AT_A_TIME)
                ).scalars()
            )
            connection.execute(
                update(AWAITED_REQUESTS)
                .where(_COLUMNS.id.in_(expired))
                .values(status=None, headers=None, body=None, progress=None, callback=None)
            )
            forgotten = list(
                connection.execute(
                    select(_COLUMNS.id)
                    .where(_COLUMNS.expires_at <= now - timedelta(seconds=REMEMBERED_S))
                    .limit(PURGED_AT_A_TIME)
                ).scalars()
            )
            connection.execute(delete(AWAITED_REQUESTS).where(_COLUMNS.id.in_(forgotten)))
            return len({*expired, *forgotten})

    def _update(self, request_id: str, **values: Any) -> None:
        with storage_errors("update"), writing(self._engine) as connection:
            connection.execute(
                update(AWAITED_REQUESTS).where(_COLUMNS.id == request_id).values(**values)
            )

    def _view(self, criterion: Any) -> RequestView | None:
        joined = (
            select(
                AWAITED_REQUESTS,
                DELIVERIES.c.status.label("delivery_status"),
                DELIVERIES.c.leased_by,
            )
            .outerjoin(DELIVERIES, DELIVERIES.c.id == _COLUMNS.delivery_id)
            .where(criterion)
        )
        with storage_errors("look"), reading(self._engine) as connection:
            row = connection.execute(joined).first()
        return None if row is None else _view(row, self._clock())


def _view(row: Row[Any], now: datetime) -> RequestView:
    reply: Reply | None = None
    if row.expires_at is not None and row.expires_at <= now:
        state = "expired"
    elif row.ended_at is not None:
        state, reply = row.state, _reply(row)
    elif row.delivery_status in _UNENDED:
        state = _UNENDED[row.delivery_status]
    else:  # handled by a flow that answers nobody, or purged from the inbox
        state = "failed"
        reply = Reply.problem(500, "the request was handled without an answer")
    return RequestView(
        id=row.id,
        digest=row.digest,
        state=state,
        received_at=row.received_at,
        ended_at=row.ended_at,
        expires_at=row.expires_at,
        run_id=row.leased_by,
        progress=None if row.progress is None else Progress(**orjson.loads(row.progress)),
        reply=reply,
        callback=None if row.callback is None else _callback(row.callback),
    )


def _callback(text: str) -> CallbackTarget:
    fields = orjson.loads(text)
    return CallbackTarget(**{**fields, "allowed_networks": tuple(fields["allowed_networks"])})


def _reply(row: Row[Any]) -> Reply:
    headers = [(name, value) for name, value in orjson.loads(row.headers)]
    content_type = next((value for name, value in headers if name == "Content-Type"), None)
    others = tuple(pair for pair in headers if pair[0] != "Content-Type")
    return Reply(row.status, row.body, content_type, others)
