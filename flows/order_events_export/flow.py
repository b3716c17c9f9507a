"""Send what happens to orders in the application to the systems that must know of it."""

from __future__ import annotations

from typing import Any

from prefect import State

from flows.order_events_export.exporting import OrderExport
from flows.order_events_export.rules import ExportRule, Rules
from tasks.api import open_api_for_deliveries
from tasks.deliveries import ConsumerSettings, handle_deliveries
from tasks.exports import published_events
from tasks.integration_flow import flow, run_name


@flow(name="order-events-export", flow_run_name=run_name())
async def order_events_export(
    rules: list[ExportRule],
    application: str = "http-api/own-app",
    destination: str = "http-api/fulfilment",
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(),
) -> State[Any]:
    """Take the waiting order events, and send each that a rule wants as that rule's request.

    An event is checked by the schema that the application publishes. One whose order has changed
    since is left to its later event, so a replay never brings back an old state. What the other
    system refuses is dead-lettered with its own words. Retry handles what this run failed to
    handle.

    Args:
        rules: Which events are sent, and how: the first whose `when` holds decides. Its `request`
            is a template of method, path, headers and body; its `write_back` tells the
            application what was answered.
        application: The block of the application whose orders they are.
        destination: The block of the system that is told.
    """
    async with (
        open_api_for_deliveries(application) as own_app,
        open_api_for_deliveries(destination) as other,
    ):
        export = OrderExport(
            published_events(own_app),
            Rules.of(rules),
            own_app,
            other,
            skips_outdated=payload is None,
        )
        return await handle_deliveries(
            "order_events_export", export.handle, settings=consumer, payload=payload
        )
