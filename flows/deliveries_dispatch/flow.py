"""Examine what comes in at one endpoint and hand each event to the integration it belongs to."""

from __future__ import annotations

from typing import Any

from prefect import State

from tasks.core.intake.inbox.consumer import ConsumerSettings
from tasks.core.intake.inbox.delivery import Delivery
from tasks.core.intake.inbox.routing import Route, route
from tasks.deliveries import handing_over_by, handle_deliveries, name_run
from tasks.integration_flow import flow


@flow(name="deliveries-dispatch", flow_run_name=name_run)
async def deliveries_dispatch(
    integration: str,
    routes: list[Route],
    payload: dict[str, Any] | None = None,
    event: str = "",
    consumer: ConsumerSettings = ConsumerSettings(),  # noqa: B008 - immutable, shown in the run form
) -> State[Any]:
    """Hand each waiting delivery to the sibling flow that the first matching rule names.

    A handed delivery stays the same delivery: its id, its content and its order are kept, and
    the sibling is rung for. One that no rule matches is dead-lettered: add a rule, then replay.

    Args:
        integration: The endpoint's integration, whose deliveries are examined.
        routes: The rules, first match first: {"when": {"path.in.payload": "value"}, "to":
            "integration"}; "$event" stands for the event's type.
        payload: A sample to examine in place of what is waiting.
        event: The sample's event type.
        consumer: How the run goes about waiting deliveries.
    """

    def decide(delivery: Delivery) -> str | None:
        return route(delivery, routes)

    return await handle_deliveries(
        integration, handing_over_by(decide), settings=consumer, payload=payload, event=event
    )
