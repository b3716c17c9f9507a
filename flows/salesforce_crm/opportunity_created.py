"""Show in the application that an opportunity has come up in Salesforce."""

from __future__ import annotations

from typing import Any

from prefect import State

from flows.salesforce_crm.application import add_activity
from flows.salesforce_crm.notifications import CURRENCY_FIELD, Opportunity, both_sides
from tasks.core.threads import in_thread
from tasks.deliveries import ConsumerSettings, Delivery, Outcome, handle_deliveries
from tasks.integration_flow import flow, run_name


@flow(name="salesforce-opportunity-created", flow_run_name=run_name())
async def opportunity_created(
    application: str = "http-api/own-app",
    salesforce: str = "http-api/salesforce",
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(concurrency=100),
) -> State[Any]:
    """Take the waiting notifications of new opportunities, fetch each, and add an activity.

    What waits together is fetched together, up to 200 records a call. A record that was deleted
    meanwhile is ignored, one that breaks its contract dead-letters its notification alone.

    Args:
        application: The block of the application that shows activities.
        salesforce: The block of Salesforce's REST API.
    """
    both = both_sides(application, salesforce, Opportunity, without=[CURRENCY_FIELD])
    async with both as (api, completion):

        async def handle(delivery: Delivery) -> Outcome | None:
            opportunity = await completion.complete(delivery, Opportunity)
            if isinstance(opportunity, Outcome):
                return opportunity
            key = delivery.idempotency_key
            await in_thread(add_activity, api, opportunity, key=key)
            return None

        return await handle_deliveries(
            "salesforce_opportunity_created", handle, settings=consumer, payload=payload
        )
