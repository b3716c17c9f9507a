"""Apply the stock changes that a partner announces to the application's inventory."""

from __future__ import annotations

from functools import partial
from typing import Any

from prefect import State

from flows.inventory_updates.updates import EVENT, apply_updates
from tasks.api import open_api_for_deliveries
from tasks.deliveries import ConsumerSettings, handle_deliveries
from tasks.integration_flow import flow, run_name


@flow(name="inventory-updates", flow_run_name=run_name())
async def inventory_updates(
    application: str = "http-api/own-app",
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(),
) -> State[Any]:
    """Take the waiting INVENTORY_UPDATE deliveries and adjust the stock of each item they name.

    An unknown item or a stock that would go negative dead-letters the delivery with the reason;
    its other updates are applied. An unknown action changes nothing and dead-letters it too.
    Retry handles what this run failed to handle.

    Args:
        application: The block of the application that keeps the inventory.
    """
    async with open_api_for_deliveries(application) as api:
        return await handle_deliveries(
            "inventory_updates",
            partial(apply_updates, api),
            settings=consumer,
            payload=payload,
            event=EVENT,
        )
