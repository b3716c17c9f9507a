"""What an INVENTORY_UPDATE says, and how each of its updates is applied."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import BaseModel, Field, StringConstraints

from blocks.errors import UpstreamRejectedError
from tasks.api import ApiClient
from tasks.deliveries import Delivery, Outcome, dead_letter, ignored

EVENT = "INVENTORY_UPDATE"


class Update(BaseModel):
    """One change of one item's stock."""

    item: Annotated[str, StringConstraints(pattern=r"[^.]", min_length=1, max_length=200)]
    action: Literal["add", "remove", "set"]
    quantity: int = Field(ge=0, strict=True)


class InventoryUpdate(BaseModel):
    """The whole event."""

    event: Literal["INVENTORY_UPDATE"]
    updates: list[Update] = Field(max_length=1000)


def apply_updates(api: ApiClient, delivery: Delivery) -> Outcome | None:
    """Apply all updates of a delivery, each once however often the delivery is handled.

    A payload that breaks its contract (an unknown action, say) changes nothing. An update that
    the application refuses (unknown item, or the stock would go negative) dead-letters the delivery
    while the others are applied; a replay after mending applies just what is missing.

    Args:
        api: The application.
        delivery: One INVENTORY_UPDATE.

    Raises:
        BadPayloadError: The payload breaks its contract.
        TransientError: The application is out of reach, busy or broken.
    """
    if delivery.event not in ("", EVENT):
        return ignored(f"{delivery.event} is no {EVENT}")
    updates = delivery.parse(InventoryUpdate).updates
    refusals = [
        refusal
        for position, update in enumerate(updates)
        if (refusal := _apply(api, update, f"{delivery.idempotency_key}-{position}"))
    ]
    if not refusals:
        return None
    applied = len(updates) - len(refusals)
    return dead_letter(f"{applied} of {len(updates)} updates applied; {'; '.join(refusals)}")


def _apply(api: ApiClient, update: Update, idempotency_key: str) -> str | None:
    """Apply one update.

    Returns:
        Why the application refused it and what to do, or None.
    """
    try:
        api.call(
            "POST",
            f"inventory/{quote(update.item, safe='')}/adjustments",
            json={"action": update.action, "quantity": update.quantity},
            idempotency_key=idempotency_key,
            operation="adjust stock",
            record=update.item,
        )
    except UpstreamRejectedError as error:
        if error.status == 404:
            return f"item {update.item!r} is unknown: create it, then replay"
        if error.status == 409:
            return (
                f"removing {update.quantity} of {update.item!r} would make the stock negative: "
                "correct the stock, then replay"
            )
        says = f" ({error.said})" if error.said else ""
        return f"item {update.item!r} is refused: {error.message}{says}, then replay"
    return None
