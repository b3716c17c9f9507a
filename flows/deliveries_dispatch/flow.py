"""Examine what comes in at one endpoint and hand each event to the integration it belongs to."""

from __future__ import annotations

from functools import partial
from typing import Any

from prefect import State

from tasks.deliveries import (
    ConsumerSettings,
    Route,
    handing_over_by,
    handle_deliveries,
    route,
)
from tasks.integration_flow import flow, run_name


@flow(name="deliveries-dispatch", flow_run_name=run_name())
async def deliveries_dispatch(
    integration: str,
    routes: list[Route],
    payload: dict[str, Any] | None = None,
    event: str = "",
    consumer: ConsumerSettings = ConsumerSettings(),
) -> State[Any]:
    """Hand each waiting delivery to the sibling flow that the first matching rule names.

    A handed delivery stays the same delivery: its id, its content and its order are kept, and
    the sibling is notified. One that no rule matches is dead-lettered: add a rule, then replay.

    Args:
        integration: The endpoint's integration, whose deliveries are examined.
        routes: The rules, first match first: {"when": {"path.in.payload": "value"}, "to":
            "integration"}; "$event" stands for the event's type.
        event: The sample's event type.
    """
    return await handle_deliveries(
        integration,
        handing_over_by(partial(route, routes=routes)),
        settings=consumer,
        payload=payload,
        event=event,
    )
