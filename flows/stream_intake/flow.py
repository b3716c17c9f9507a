"""Import order events from whatever source announces them into the application."""

from __future__ import annotations

from typing import Any

from prefect import State

from blocks.http_api import HttpApi
from flows.stream_intake.orders import import_orders
from tasks.api import open_api
from tasks.connections import load_connection
from tasks.core.intake.inbox.consumer import ConsumerSettings
from tasks.core.intake.inbox.delivery import Delivery, Outcome
from tasks.deliveries import handle_deliveries, name_run
from tasks.integration_flow import flow


@flow(name="stream-intake", flow_run_name=name_run)
async def stream_intake(
    application: str = "http-api/own-app",
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(),  # noqa: B008 - immutable, shown in the run form
) -> State[Any]:
    """Take the waiting order events, of webhooks, queues, topics and mails alike.

    An event carries one order; a mail carries files of orders. An order that breaks its contract
    parks the delivery with the reason; the good orders of a mail are imported all the same.

    Args:
        application: The block of the application that keeps the orders.
        payload: A sample order event to import in place of what is waiting.
        consumer: How the run goes about waiting deliveries.
    """
    block = await load_connection(application, HttpApi)
    # one attempt a call: retries are the delivery's own, so that they are seen
    with open_api(block.model_copy(update={"max_attempts": 1})) as api:

        def handle(delivery: Delivery) -> Outcome | None:
            return import_orders(api, delivery)

        return await handle_deliveries(
            "stream_intake", handle, settings=consumer, payload=payload, event="order.placed"
        )
