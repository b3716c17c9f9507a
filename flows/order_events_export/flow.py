"""Send what happens to orders in the application to the systems that must know of it."""

from __future__ import annotations

from typing import Any

from prefect import State

from blocks.http_api import HttpApi
from flows.order_events_export.exporting import OrderExport
from flows.order_events_export.rules import ExportRule, Rules
from tasks.api import open_api
from tasks.connections import load_connection
from tasks.core.intake.inbox.consumer import ConsumerSettings
from tasks.deliveries import handle_deliveries, name_run
from tasks.exports import published_events
from tasks.integration_flow import flow


@flow(name="order-events-export", flow_run_name=name_run)
async def order_events_export(
    rules: list[ExportRule],
    application: str = "http-api/own-app",
    destination: str = "http-api/fulfilment",
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(),  # noqa: B008 - immutable, shown in the run form
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
        payload: A sample event to export in place of what is waiting.
        consumer: How the run goes about waiting deliveries.
    """
    # one attempt a call: retries are the delivery's own, so that they are seen
    once = {"max_attempts": 1}
    own_app = (await load_connection(application, HttpApi)).model_copy(update=once)
    other = (await load_connection(destination, HttpApi)).model_copy(update=once)
    with open_api(own_app) as application_api, open_api(other) as destination_api:
        export = OrderExport(
            published_events(application_api),
            Rules.of(rules),
            application_api,
            destination_api,
            skips_outdated=payload is None,
        )
        return await handle_deliveries(
            "order_events_export",
            export.handle,
            settings=consumer,
            payload=payload,
            event=str((payload or {}).get("type", "")),
        )
