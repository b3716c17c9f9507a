"""A marketplace without webhooks, where orders come in all the time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sandbox.scenarios import Sandbox
from sandbox.systems import marketplace_api

_ORDERS_OF_YESTERDAY = 60
_BUSINESS_EVERY_S = 20


@contextmanager
def run(sandbox: Sandbox) -> Iterator[None]:
    """Serve its API; business goes on while the sandbox lives."""
    now = datetime.now(UTC)
    # It forgets its orders when it stops: those of another start are others.
    first_number = int(now.timestamp()) % 100_000_000
    with marketplace_api.start(requests_a_minute=120, first_number=first_number) as marketplace:
        began_at = now - timedelta(days=1)
        for number in range(_ORDERS_OF_YESTERDAY // 3):
            marketplace.place(3, at=began_at + timedelta(minutes=number))
        sandbox.blocks["http-api/marketplace"] = marketplace.block()
        sandbox.every(_BUSINESS_EVERY_S, marketplace.do_business)
        yield
