"""Import order events from whatever source announces them into the application."""

from __future__ import annotations

from functools import partial
from typing import Any

from prefect import State

from flows.stream_intake.orders import import_orders
from tasks.api import open_api_for_deliveries
from tasks.deliveries import ConsumerSettings, handle_deliveries
from tasks.integration_flow import flow, run_name


@flow(name="stream-intake", flow_run_name=run_name())
async def stream_intake(
    application: str = "http-api/own-app",
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(),
) -> State[Any]:
    """Take the waiting order events, of webhooks, queues, topics and mails alike.

    An event carries one order; a mail carries files of orders. An order that breaks its contract
    dead-letters the delivery with the reason; the good orders of a mail are imported all the same.

    Args:
        application: The block of the application that keeps the orders.
    """
    async with open_api_for_deliveries(application) as api:
        return await handle_deliveries(
            "stream_intake",
            partial(import_orders, api),
            settings=consumer,
            payload=payload,
            event="order.placed",
        )
