"""The logistics company that ships what the application's users sell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any

from blocks.http_api import HttpApi
from sandbox.scenarios import Sandbox
from sandbox.systems import fulfilment_api

_EVERY_S = 60
_NOT_SHIPPED_EVERY = 5  # one order in so many is refused, and is dead-lettered


@contextmanager
def run(sandbox: Sandbox) -> Iterator[None]:
    """Play it, and a user who sells something every minute."""
    application = sandbox.blocks["http-api/own-app"]
    assert isinstance(application, HttpApi)  # noqa: S101 - the sandbox made it
    numbers = count(1)

    def sell() -> None:
        order = _order(next(numbers))
        with application.get_client() as client:
            client.put(f"orders/{order['order_no']}", json=order).raise_for_status()

    with fulfilment_api.start() as fulfilment:
        sandbox.blocks["http-api/fulfilment"] = fulfilment.block()
        sandbox.every(_EVERY_S, sell)
        yield


def _order(number: int) -> dict[str, Any]:
    now = datetime.now(UTC)
    sku = "lithium-battery" if number % _NOT_SHIPPED_EVERY == 0 else f"{number % 400:06}"
    return {
        "order_no": f"SO-{now:%m%d%H%M%S}",
        "customer": "Ines Álvarez",
        "ordered_at": now.isoformat(),
        "status": "paid",
        "total": "24.00",
        "currency": "EUR",
        "lines": [{"sku": sku, "quantity": 2, "unit_price": "12.00"}],
    }
