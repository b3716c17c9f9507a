"""Apply the stock changes that a partner announces to the application's inventory."""

from __future__ import annotations

from typing import Any

from prefect import State

from blocks.http_api import HttpApi
from flows.inventory_updates.updates import EVENT, apply_updates
from tasks.api import open_api
from tasks.connections import load_connection
from tasks.core.intake.inbox.consumer import ConsumerSettings
from tasks.core.intake.inbox.delivery import Delivery, Outcome
from tasks.deliveries import handle_deliveries, name_run
from tasks.integration_flow import flow


@flow(name="inventory-updates", flow_run_name=name_run)
async def inventory_updates(
    application: str = "http-api/own-app",
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(),  # noqa: B008 - immutable, shown in the run form
) -> State[Any]:
    """Take the waiting INVENTORY_UPDATE deliveries and adjust the stock of each item they name.

    An unknown item or a stock that would go negative parks the delivery with the reason, while
    its other updates are applied; an unknown action changes nothing and parks it too. Retry
    handles what this run failed to handle.

    Args:
        application: The block of the application that keeps the inventory.
        payload: A sample INVENTORY_UPDATE to apply in place of what is waiting.
        consumer: How the run goes about waiting deliveries.
    """
    block = await load_connection(application, HttpApi)
    # one attempt a call: retries are the delivery's own, so that they are seen
    with open_api(block.model_copy(update={"max_attempts": 1})) as api:

        def handle(delivery: Delivery) -> Outcome | None:
            return apply_updates(api, delivery)

        return await handle_deliveries(
            "inventory_updates", handle, settings=consumer, payload=payload, event=EVENT
        )
