"""Show in the application that an opportunity has come up in Salesforce."""

from __future__ import annotations

from functools import partial
from typing import Any

from prefect import State

from flows.salesforce_crm.application import add_activity
from flows.salesforce_crm.notifications import CURRENCY_FIELD, Opportunity, current_records
from tasks.api import open_api_for_deliveries
from tasks.deliveries import ConsumerSettings, handle_deliveries
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
    meanwhile is ignored; the notification of one that breaks its contract is dead-lettered alone.

    Args:
        application: The block of the application that shows activities.
        salesforce: The block of Salesforce's REST API.
    """
    async with (
        open_api_for_deliveries(application) as own_app,
        current_records(salesforce, Opportunity, without=[CURRENCY_FIELD]) as opportunities,
    ):
        return await handle_deliveries(
            "salesforce_opportunity_created",
            opportunities.handling_by(partial(add_activity, own_app)),
            settings=consumer,
            payload=payload,
        )
