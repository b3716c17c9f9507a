"""Webhook subscriptions, and the events that their subscribers have not acknowledged yet.

An event is written with the change it tells of, in one commit. Events of one record leave in
order: a later one waits until the earlier one is acknowledged.
"""

from __future__ import annotations

import secrets
import sqlite3
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

_SCHEMA = """
CREATE TABLE IF NOT EXISTS webhook (
    id TEXT PRIMARY KEY, url TEXT NOT NULL, events TEXT NOT NULL, description TEXT NOT NULL,
    secret TEXT NOT NULL, created_at TEXT NOT NULL, last_status INTEGER
);
CREATE TABLE IF NOT EXISTS outgoing (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, webhook_id TEXT NOT NULL, subject TEXT NOT NULL,
    event_id TEXT NOT NULL, body BLOB NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    due_at REAL NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS outgoing_in_order ON outgoing (webhook_id, subject, seq);
"""
_DUE = """
SELECT o.seq, o.webhook_id, o.subject, o.event_id, o.body, o.attempts, w.url, w.secret
FROM outgoing o JOIN webhook w ON w.id = o.webhook_id
WHERE o.due_at <= ? AND o.seq = (
    SELECT min(e.seq) FROM outgoing e WHERE e.webhook_id = o.webhook_id AND e.subject = o.subject
) ORDER BY o.seq LIMIT ?
"""
_FIRST_WAIT_S = 0.5
_MAX_WAIT_S = 30


class Webhook(NamedTuple):
    """A subscription; `last_status` is how its last event was answered, None without an answer."""

    id: str
    url: str
    events: list[str]
    description: str
    secret: str
    created_at: str
    last_status: int | None

    def shown(self) -> dict[str, Any]:
        """As the API shows it: without its secret."""
        return {name: value for name, value in self._asdict().items() if name != "secret"}


class Change(NamedTuple):
    """What happened to one record: its JSON text with instant and version, after the change."""

    type: str
    subject: str
    record: str


class Outgoing(NamedTuple):
    """An event on its way to one subscriber."""

    seq: int
    webhook_id: str
    subject: str
    event_id: str
    body: bytes
    attempts: int
    url: str
    secret: str


class Outbox:
    """Shares the store's connection, so that events are committed with what they tell of."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.executescript(_SCHEMA)

    def tell(self, changes: Iterable[Change], *, at: str, source: str | None) -> None:
        """Write each change for everybody who has subscribed to it.

        Args:
            changes: In the order in which they happened.
            at: RFC 3339 instant.
            source: Who made them, if they said so.
        """
        subscribers = self._subscribers()
        if not subscribers:
            return
        rows = []
        for change in changes:
            webhook_ids = subscribers.get(change.type)
            if webhook_ids:
                event_id, body = _event(change, at, source)
                rows += [(id_, change.subject, event_id, body) for id_ in webhook_ids]
        self._connection.executemany(
            "INSERT INTO outgoing (webhook_id, subject, event_id, body) VALUES (?, ?, ?, ?)", rows
        )

    def add(
        self, *, url: str, events: Sequence[str], description: str, secret: str | None
    ) -> Webhook:
        """Subscribe; the secret is made unless it is given."""
        webhook = Webhook(
            id=f"wh_{secrets.token_hex(8)}",
            url=url,
            events=list(events),
            description=description,
            secret=secret or f"whsec_{b64encode(secrets.token_bytes(24)).decode()}",
            created_at=_now(),
            last_status=None,
        )
        self._connection.execute("INSERT INTO webhook VALUES (?, ?, ?, ?, ?, ?, ?)", _row(webhook))
        return webhook

    def replace(self, webhook: Webhook) -> None:
        """Store a changed subscription; what waits for it goes to its new URL."""
        self._connection.execute("REPLACE INTO webhook VALUES (?, ?, ?, ?, ?, ?, ?)", _row(webhook))
        self._connection.execute(
            "UPDATE outgoing SET due_at = 0 WHERE webhook_id = ?", [webhook.id]
        )

    def remove(self, id_: str) -> bool:
        """End a subscription; what waits for it is dropped. Tells whether there was one."""
        self._connection.execute("DELETE FROM outgoing WHERE webhook_id = ?", [id_])
        return self._connection.execute("DELETE FROM webhook WHERE id = ?", [id_]).rowcount == 1

    def get(self, id_: str) -> Webhook | None:
        """One subscription, if there is one."""
        return next((each for each in self.all() if each.id == id_), None)

    def all(self) -> list[Webhook]:
        """All subscriptions, oldest first."""
        rows = self._connection.execute("SELECT * FROM webhook ORDER BY created_at, id")
        return [Webhook(id_, url, orjson.loads(events), *rest) for id_, url, events, *rest in rows]

    def ping(self, webhook: Webhook) -> Outgoing:
        """An event that only tries the subscription; it is not stored."""
        change = Change("ping", "", orjson.dumps({"webhook_id": webhook.id}).decode())
        event_id, body = _event(change, _now(), None)
        return Outgoing(0, webhook.id, "", event_id, body, 0, webhook.url, webhook.secret)

    def due(self, *, now_s: float, limit: int) -> list[Outgoing]:
        """Events that may leave: the oldest of each record for each subscriber, if it is time."""
        return [Outgoing(*row) for row in self._connection.execute(_DUE, [now_s, limit])]

    def waiting(self) -> int:
        """How many events have not been acknowledged."""
        found: tuple[int] = self._connection.execute("SELECT count(*) FROM outgoing").fetchone()
        return found[0]

    def settle(self, attempts: Sequence[tuple[Outgoing, int | None]], *, now_s: float) -> None:
        """Write what became of attempts.

        Args:
            attempts: Event and the status it was answered; None without an answer.
            now_s: Unix time.
        """
        for event, status in attempts:
            if status is not None and 200 <= status < 300:
                self._connection.execute("DELETE FROM outgoing WHERE seq = ?", [event.seq])
            else:
                wait_s = min(_FIRST_WAIT_S * 2 ** min(event.attempts, 20), _MAX_WAIT_S)
                self._connection.execute(
                    "UPDATE outgoing SET attempts = attempts + 1, due_at = ? WHERE seq = ?",
                    [now_s + wait_s, event.seq],
                )
        self.note(attempts)

    def note(self, attempts: Sequence[tuple[Outgoing, int | None]]) -> None:
        """Let each subscription tell how its last attempt was answered."""
        last = {event.webhook_id: status for event, status in attempts}
        self._connection.executemany(
            "UPDATE webhook SET last_status = ? WHERE id = ?",
            [(status, id_) for id_, status in last.items()],
        )

    def _subscribers(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        for webhook in self.all():
            for event in webhook.events:
                found.setdefault(event, []).append(webhook.id)
        return found


def _event(change: Change, at: str, source: str | None) -> tuple[str, bytes]:
    event_id = f"evt_{secrets.token_hex(12)}"
    head = orjson.dumps({"id": event_id, "type": change.type, "timestamp": at})[:-1]
    tail = orjson.dumps({"source": source})[1:]
    return event_id, head + b',"data":' + change.record.encode() + b"," + tail


def _row(webhook: Webhook) -> list[Any]:
    return [*webhook[:2], orjson.dumps(webhook.events).decode(), *webhook[3:]]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
