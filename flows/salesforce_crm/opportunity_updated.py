"""Let the application know how Salesforce's opportunities stand; one that is won is an order."""

from __future__ import annotations

from functools import partial
from typing import Any

from prefect import State

from flows.salesforce_crm.application import put_opportunity
from flows.salesforce_crm.notifications import (
    CURRENCY_FIELD,
    Currency,
    Opportunity,
    current_records,
)
from tasks.api import open_api_for_deliveries
from tasks.deliveries import ConsumerSettings, handle_deliveries
from tasks.integration_flow import flow, run_name


@flow(name="salesforce-opportunity-updated", flow_run_name=run_name())
async def opportunity_updated(
    application: str = "http-api/own-app",
    salesforce: str = "http-api/salesforce",
    currency: Currency | None = None,
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(concurrency=100),
) -> State[Any]:
    """Take the waiting notifications of changed opportunities, fetch each, and put it as it is now.

    Notifications of one opportunity are handled one after the other, and what is put is what was
    fetched after the notification came: however they are repeated, the newest state stays.

    Args:
        application: The block of the application that keeps orders and activities.
        salesforce: The block of Salesforce's REST API.
        currency: The organisation's currency, as EUR; empty if it has several, so that each
            opportunity says its own.
    """
    without = [CURRENCY_FIELD] if currency else []
    async with (
        open_api_for_deliveries(application) as own_app,
        current_records(salesforce, Opportunity, without=without) as opportunities,
    ):
        return await handle_deliveries(
            "salesforce_opportunity_updated",
            opportunities.handling_by(partial(put_opportunity, own_app, currency=currency)),
            settings=consumer,
            payload=payload,
        )
