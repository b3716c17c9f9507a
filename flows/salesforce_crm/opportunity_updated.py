"""Let the application know how Salesforce's opportunities stand; one that is won is an order."""

from __future__ import annotations

from typing import Any

from prefect import State

from flows.salesforce_crm.application import put_opportunity
from flows.salesforce_crm.notifications import (
    CURRENCY_FIELD,
    Currency,
    Opportunity,
    both_sides,
)
from tasks.core.threads import in_thread
from tasks.deliveries import ConsumerSettings, Delivery, Outcome, done, handle_deliveries
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
    both = both_sides(application, salesforce, Opportunity, without=without)
    async with both as (api, completion):

        async def handle(delivery: Delivery) -> Outcome:
            opportunity = await completion.complete(delivery, Opportunity)
            if isinstance(opportunity, Outcome):
                return opportunity
            in_currency = opportunity.model_copy(
                update={"currency": opportunity.currency or currency}
            )
            return done(await in_thread(put_opportunity, api, in_currency))

        return await handle_deliveries(
            "salesforce_opportunity_updated", handle, settings=consumer, payload=payload
        )
