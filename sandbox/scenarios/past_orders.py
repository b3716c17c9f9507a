"""What the application's users sold in the weeks before, so that the first report has rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from blocks.http_api import HttpApi
from sandbox.scenarios import Sandbox

_DAYS = 14  # whichever week a report covers, it lies within
_ORDERS_A_DAY = 3
_CUSTOMERS = ("Ines Álvarez", "Joost Bakker", "Mei Chen", "Café Déjà Vu", "Ōkubo & Söhne")


@contextmanager
def run(sandbox: Sandbox) -> Iterator[None]:
    """Let the application have had orders, unless it knows some already."""
    application = sandbox.blocks["http-api/own-app"]
    assert isinstance(application, HttpApi)  # noqa: S101 - the sandbox made it
    with application.get_client() as client:
        known = client.get("orders", params={"limit": 1}).raise_for_status().json()
        if not known["records"]:
            client.post(
                "orders/batch",
                json={"records": _orders()},
                headers={"Idempotency-Key": "orders of the weeks before"},
            ).raise_for_status()
    yield


def _orders() -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    return [
        _order(now - timedelta(days=day, minutes=random.randint(1, 1_400)), number)
        for day in range(_DAYS, 0, -1)
        for number in range(1, _ORDERS_A_DAY + 1)
    ]


def _order(at: datetime, number: int) -> dict[str, Any]:
    sold = [
        (f"{article:06}", random.randint(1, 9), Decimal(random.randint(500, 9_999)) / 100)
        for article in random.sample(range(400), random.randint(1, 3))
    ]
    return {
        "order_no": f"PO-{at:%y%m%d}-{number}-{random.randint(100, 999)}",
        "customer": random.choice(_CUSTOMERS),
        "ordered_at": at.isoformat(),
        "status": "shipped",
        "total": f"{sum(quantity * price for _, quantity, price in sold):.2f}",
        "currency": "EUR",
        "lines": [
            {"sku": sku, "quantity": quantity, "unit_price": f"{price:.2f}"}
            for sku, quantity, price in sold
        ],
    }
