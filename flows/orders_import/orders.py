"""How the marketplace shows orders, and what they are in the application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.api import BodyCursor
from tasks.data_import import IncrementalList

ORDERS = IncrementalList(
    path="orders",
    pagination=BodyCursor(records_path="records"),
    params={"limit": 100},
    until_param="updated_until",
    # a backfill of days is read by hours, some at once
    slice_s=3600,
    at_once=4,
)


def order_of(shown: Mapping[str, Any]) -> dict[str, Any]:
    """The application's order; the model checks it, so that nothing is checked here."""
    return {
        "order_no": shown["id"],
        "customer": shown["buyer"]["name"],
        "ordered_at": shown["placed_at"],
        "status": shown["state"],
        "total": shown["amount"],
        "currency": shown["currency"],
        "lines": [
            {"sku": item["sku"], "quantity": item["qty"], "unit_price": item["price"]}
            for item in shown["items"]
        ],
    }
