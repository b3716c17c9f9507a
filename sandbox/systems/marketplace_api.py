"""A marketplace's orders API on the loopback: no webhooks, short tokens, cursor pages, a budget.

Orders are listed by the second of their last change, so that many share one; some appear late,
with a change that is seconds ago; and now and then one is wrong.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import itertools
import json
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.systems.stand_in import StandIn
from sandbox.systems.web_server import CutAnswer, WebServer

if TYPE_CHECKING:
    from blocks.http_api import HttpApi

_CLIENT_ID = "integration-patterns"
_LARGEST_PAGE = 200
_KEPT_ORDERS = 5000
_BUYERS = ("Ada Okafor", "Bruno Marques", "Chloé Lefèvre", "Elif Yıldız", "Haruka Satō")
_STATES = ("paid", "shipped", "delivered", "cancelled")


@dataclass
class MarketplaceFaults:
    """What goes wrong until it is set back; numbers count down with each request they spoil.

    Attributes:
        busy: So many requests are answered 429.
        retry_after_s: What those ask for.
        broken: So many requests are answered 500.
        cut: So many answers end in the middle.
        repeat_cursor: The next cursor is always the same.
        forget_cursors: No cursor is known any more.
        delay_s: Every answer takes so long.
    """

    busy: int = 0
    retry_after_s: float = 0
    broken: int = 0
    cut: int = 0
    repeat_cursor: bool = False
    forget_cursors: bool = False
    delay_s: float = 0


class MarketplaceSandbox(StandIn):
    """A running API.

    Orders are paged by cursor, or by number if a page is asked for.

    Attributes:
        faults: What goes wrong.
        on_orders: Called before each answer with orders.
        requests: How often a "token" was asked for, "orders" were, and a token was "refused".
        queries: The query of each request for orders, oldest first.
    """

    def __init__(
        self,
        port: int,
        client_secret: str,
        *,
        token_lifetime_s: float,
        requests_a_minute: int,
        first_number: int,
    ) -> None:
        self.faults = MarketplaceFaults()
        self.on_orders: Callable[[], None] = _nothing
        self.requests: Counter[str] = Counter()
        self.queries: list[dict[str, str]] = []
        self._secret = client_secret
        self._token_lifetime_s = token_lifetime_s
        self._requests_a_minute = requests_a_minute
        self._spent: Counter[int] = Counter()
        self._tokens: dict[str, float] = {}
        self._orders: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count(first_number)
        self._lock = threading.Lock()
        routes = [
            Route("/oauth/token", self._token, methods=["POST"]),
            Route("/v1/orders", self._list, methods=["GET"]),
        ]
        self._server = WebServer(Starlette(routes=routes), port=port, name="marketplace-sandbox")

    @property
    def url(self) -> str:
        """Its address."""
        return self._server.url

    def block(self, **fields: Any) -> HttpApi:
        """The block for it; `fields` go before what would be right."""
        from blocks.http_api import HttpApi, OAuth2Client

        auth = OAuth2Client(
            token_url=f"{self.url}/oauth/token", client_id=_CLIENT_ID, client_secret=self._secret
        )
        return HttpApi(**{"base_url": f"{self.url}/v1", "auth": auth, **fields})

    def put(self, order: Mapping[str, Any]) -> None:
        """Have an order, in place of the one of the same id."""
        with self._lock:
            self._orders[str(order["id"])] = dict(order)
            while len(self._orders) > _KEPT_ORDERS:
                del self._orders[next(iter(self._orders))]

    def orders(self) -> list[dict[str, Any]]:
        """All orders in the order of their last change."""
        with self._lock:
            return sorted(self._orders.values(), key=_place)

    def place(
        self, count: int = 1, *, at: datetime | None = None, chance: random.Random | None = None
    ) -> list[str]:
        """Have new orders that all changed in the same second.

        Args:
            count: How many.
            at: That second; now by default.
            chance: Makes their content.

        Returns:
            Their ids.
        """
        chance = chance or random.Random()
        made = [
            new_order(next(self._numbers), at or datetime.now(UTC), chance) for _ in range(count)
        ]
        for order in made:
            self.put(order)
        return [order["id"] for order in made]

    def change(self, order_id: str, *, at: datetime | None = None, **fields: Any) -> None:
        """Change an order, as of now or another time."""
        with self._lock:
            order = self._orders.pop(order_id)
        self.put({**order, "updated_at": _second(at or datetime.now(UTC)), **fields})

    def do_business(self) -> None:
        """What happens in a moment: new orders, changed ones, a late one, at times a bad one."""
        chance = random.Random()
        now = datetime.now(UTC)
        self.place(chance.randint(1, 4), at=now, chance=chance)
        self.place(1, at=now - timedelta(seconds=chance.randint(2, 40)), chance=chance)
        ids = [order["id"] for order in self.orders()]
        for id_ in chance.sample(ids, min(2, len(ids))):
            self.change(id_, at=now, state=chance.choice(_STATES))
        if chance.random() < 0.3:
            [bad] = self.place(1, at=now, chance=chance)
            self.change(bad, at=now, amount=chance.choice(("-1.00", "a lot")))

    def expire_tokens(self) -> None:
        """Let every token given out so far be too old."""
        self._tokens.clear()

    def reset(self) -> None:
        """Forget orders, faults, tokens and counts."""
        with self._lock:
            self._orders.clear()
        self.requests.clear()
        self.queries.clear()
        self._spent.clear()
        self._tokens.clear()
        self.faults = MarketplaceFaults()
        self.on_orders = _nothing

    def stop(self) -> None:
        """Stop listening."""
        self._server.stop()

    async def _token(self, request: Request) -> Response:
        self.requests["token"] += 1
        form = dict(parse_qsl((await request.body()).decode()))
        pair = base64.b64encode(f"{_CLIENT_ID}:{self._secret}".encode()).decode()
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Basic {pair}".encode()):
            return JSONResponse({"error": "invalid_client"}, 401)
        if form.get("grant_type") != "client_credentials":
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        token = secrets.token_urlsafe(16)
        self._tokens[token] = time.monotonic() + self._token_lifetime_s
        lifetime = {"expires_in": self._token_lifetime_s, "token_type": "Bearer"}
        return JSONResponse({"access_token": token, **lifetime})

    async def _list(self, request: Request) -> Response:
        await asyncio.sleep(self.faults.delay_s)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._tokens.get(token, 0) <= time.monotonic():
            self.requests["refused"] += 1
            return _problem(401, "the token is unknown or too old")
        self.requests["orders"] += 1
        query = dict(request.query_params)
        self.queries.append(query)
        budget = self._budget()
        if fault := self._fault():
            return fault
        if budget["X-RateLimit-Remaining"] == "-1":
            budget["X-RateLimit-Remaining"] = "0"
            wait = {"Retry-After": budget["X-RateLimit-Reset"]}
            return _problem(429, "too many requests", {**budget, **wait})
        self.on_orders()
        try:
            return JSONResponse(self._page(query), headers=budget)
        except ValueError as exc:
            return _problem(400, str(exc))

    def _budget(self) -> dict[str, str]:
        """The rate limit's headers, -1 remaining if it is exceeded."""
        now = time.time()
        window = int(now // 60)
        self._spent[window] += 1
        left = max(self._requests_a_minute - self._spent[window], -1)
        return {
            "X-RateLimit-Limit": str(self._requests_a_minute),
            "X-RateLimit-Remaining": str(left),
            "X-RateLimit-Reset": str(int((window + 1) * 60 - now) + 1),
        }

    def _fault(self) -> Response | None:
        if self.faults.busy > 0:
            self.faults.busy -= 1
            return _problem(429, "busy", {"Retry-After": f"{self.faults.retry_after_s:g}"})
        if self.faults.broken > 0:
            self.faults.broken -= 1
            return _problem(500, "broken")
        if self.faults.cut > 0:
            self.faults.cut -= 1
            return CutAnswer()
        return None

    def _page(self, query: Mapping[str, str]) -> dict[str, Any]:
        limit = int(query.get("limit", "50"))
        if not 1 <= limit <= _LARGEST_PAGE:
            raise ValueError(f"limit must be a number from 1 to {_LARGEST_PAGE}")
        since, until = _given(query.get("updated_since")), _given(query.get("updated_until"))
        behind = self._position(query.get("cursor"))
        found = [
            order
            for order in self.orders()
            if _place(order) > behind
            and (since is None or order["updated_at"] >= since)
            and (until is None or order["updated_at"] < until)
        ]
        if "page" in query:
            skipped = (int(query["page"]) - 1) * limit
            return {"records": found[skipped : skipped + limit], "total": len(found)}
        page, more = found[:limit], len(found) > limit
        cursor = None
        if more and self.faults.repeat_cursor:
            cursor = _cursor(("", ""))
        elif more:
            cursor = _cursor(_place(page[-1]))
        return {"records": page, "next_cursor": cursor}

    def _position(self, cursor: str | None) -> tuple[str, str]:
        if cursor is None:
            return ("", "")
        try:
            updated_at, id_ = json.loads(base64.urlsafe_b64decode(cursor))
        except (binascii.Error, ValueError, TypeError):
            raise ValueError("the cursor is not one of ours") from None
        if self.faults.forget_cursors:
            raise ValueError("the cursor is too old")
        return (str(updated_at), str(id_))


def new_order(number: int, at: datetime, chance: random.Random) -> dict[str, Any]:
    """An order as the marketplace shows it."""
    items = [
        {
            "sku": f"{chance.randrange(400):06}",
            "qty": chance.randint(1, 9),
            "price": f"{chance.randint(1, 90)}.50",
        }
        for _ in range(chance.randint(1, 4))
    ]
    return {
        "id": f"MP-{number:06}",
        "updated_at": _second(at),
        "placed_at": _second(at - timedelta(minutes=chance.randint(1, 90))),
        "buyer": {"name": chance.choice(_BUYERS), "country": "DE"},
        "state": "paid",
        "amount": str(_total(items)),
        "currency": "EUR",
        "items": items,
    }


def start(
    *,
    port: int = 0,
    client_secret: str = "sandbox-marketplace-secret",  # noqa: S107 - a stand-in's
    token_lifetime_s: float = 60,
    requests_a_minute: int = 600,
    first_number: int = 1,
) -> MarketplaceSandbox:
    """Serve an API without orders; what it has is gone when it stops.

    Args:
        port: 0 for a free one.
        client_secret: Of its only client.
        token_lifetime_s: How long its tokens are good.
        requests_a_minute: How many requests for orders it answers in each minute of the clock.
        first_number: Of its orders.
    """
    return MarketplaceSandbox(
        port,
        client_secret,
        token_lifetime_s=token_lifetime_s,
        requests_a_minute=requests_a_minute,
        first_number=first_number,
    )


def _nothing() -> None:
    """What happens before an answer unless a test says otherwise."""


def _total(items: Iterable[Mapping[str, Any]]) -> Decimal:
    return sum((item["qty"] * Decimal(item["price"]) for item in items), Decimal(0))


def _place(order: Mapping[str, Any]) -> tuple[str, str]:
    return (order["updated_at"], order["id"])


def _cursor(place: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _second(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _given(instant: str | None) -> str | None:
    if instant is None:
        return None
    at = datetime.fromisoformat(instant)
    if at.tzinfo is None:
        raise ValueError("instants need a zone")
    return _second(at)


def _problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(
        {"status": status, "detail": detail},
        status,
        headers=dict(headers or {}),
        media_type="application/problem+json",
    )
