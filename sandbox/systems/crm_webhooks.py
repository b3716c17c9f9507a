"""The CRM's webhooks: subscriptions by API, and events sent by Standard Webhooks until taken."""

from __future__ import annotations

import base64
import itertools
import queue
import secrets
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import httpx
import orjson

from sandbox.systems.standard_webhooks import signed_headers

EVENTS = ("contact.created", "contact.updated", "contact.deleted", "contact.merged")
_WAITS_S = (0.2, 1, 5, 30)
_TIMEOUT_S = 10


@dataclass
class Subscription:
    """Who is to be called, for which events."""

    id: str
    url: str
    events: list[str]
    description: str
    secret: str

    def shown(self) -> dict[str, Any]:
        """As the API shows it; the secret is told once, at the creation."""
        return {name: value for name, value in vars(self).items() if name != "secret"}


@dataclass(frozen=True)
class Event:
    """One event as it is sent."""

    id: str
    type: str
    body: bytes


class CrmWebhooks:
    """Subscriptions and the thread that calls them.

    Attributes:
        mode: "send" events, or "lose" them as if they never happened.
        sent: Type and status of each call, oldest first; None for no answer.
    """

    def __init__(self, file: Path | None) -> None:
        self.mode: Literal["send", "lose"] = "send"
        self.sent: list[tuple[str, int | None]] = []
        self._file = file
        self._subscriptions: dict[str, Subscription] = {}
        self._waiting: queue.PriorityQueue[tuple[float, int, Any]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._stopping = threading.Event()
        if file is not None and file.exists():
            for each in orjson.loads(file.read_bytes()):
                self._subscriptions[each["id"]] = Subscription(**each)
        self._thread = threading.Thread(target=self._work, name="crm-webhooks", daemon=True)
        self._thread.start()

    def tell(self, event_type: str, content: dict[str, Any]) -> None:
        """Send an event to all who asked for it."""
        if self.mode == "lose":
            return
        event = _event(event_type, content)
        for subscription in list(self._subscriptions.values()):
            if event_type in subscription.events:
                self._put(0, (event, subscription.id, 0))

    def all(self) -> list[dict[str, Any]]:
        """All subscriptions, oldest first."""
        return [each.shown() for each in self._subscriptions.values()]

    def get(self, id_: str) -> Subscription | None:
        """One subscription."""
        return self._subscriptions.get(id_)

    def add(
        self, url: str, events: list[str], *, description: str = "", secret: str | None = None
    ) -> dict[str, Any]:
        """Subscribe; the answer tells the secret."""
        made = secret or f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
        added = Subscription(f"hook-{uuid.uuid4().hex[:8]}", url, events, description, made)
        self._subscriptions[added.id] = added
        self._keep()
        return added.shown() | {"secret": added.secret}

    def change(self, id_: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Change what is given."""
        subscription = self._subscriptions[id_]
        for name in ("url", "events", "description", "secret"):
            if fields.get(name) is not None:
                setattr(subscription, name, fields[name])
        self._keep()
        return subscription.shown()

    def remove(self, id_: str) -> None:
        """End a subscription."""
        del self._subscriptions[id_]
        self._keep()

    def ping(self, id_: str) -> int | None:
        """Send an event of type ping now; the status of the answer."""
        with httpx.Client(timeout=_TIMEOUT_S) as http:
            return self._send(http, _event("ping", {}), self._subscriptions[id_])

    def clear(self) -> None:
        """Forget all subscriptions, and what waits for them."""
        self._subscriptions.clear()
        self.sent.clear()
        self.mode = "send"

    def stop(self) -> None:
        """Call nobody any more."""
        self._stopping.set()
        self._put(0, None)
        self._thread.join()

    def _work(self) -> None:
        # a connection a call: subscribers come and go
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(timeout=_TIMEOUT_S, limits=limits) as http:
            while not self._stopping.is_set():
                due_at, _, work = self._waiting.get()
                if work is None:
                    continue
                if self._stopping.wait(max(0.0, due_at - _now_s())):
                    return
                event, subscription_id, attempt = work
                subscription = self._subscriptions.get(subscription_id)
                if subscription is None:
                    continue
                status = self._send(http, event, subscription)
                if (status is None or status >= 300) and attempt < len(_WAITS_S):
                    self._put(_WAITS_S[attempt], (event, subscription_id, attempt + 1))

    def _send(self, http: httpx.Client, event: Event, subscription: Subscription) -> int | None:
        now = datetime.now(UTC)
        headers = signed_headers(subscription.secret, event.id, event.body, now=now)
        headers |= {"Content-Type": "application/json", "User-Agent": "crm"}
        status = None
        try:
            status = http.post(subscription.url, content=event.body, headers=headers).status_code
        except httpx.HTTPError:
            status = None
        self.sent.append((event.type, status))
        return status

    def _put(self, wait_s: float, work: Any) -> None:
        self._waiting.put((_now_s() + wait_s if wait_s else 0.0, next(self._order), work))

    def _keep(self) -> None:
        if self._file is not None:
            kept = [vars(each) for each in self._subscriptions.values()]
            self._file.write_bytes(orjson.dumps(kept))


def _event(event_type: str, content: dict[str, Any]) -> Event:
    id_ = f"evt_{uuid.uuid4().hex}"
    body = {"id": id_, "type": event_type, "occurred_at": datetime.now(UTC).isoformat(), **content}
    return Event(id_, event_type, orjson.dumps(body))


def _now_s() -> float:
    return datetime.now(UTC).timestamp()
