"""Pre-process flow: one endpoint for all that Salesforce tells, a sibling flow for each kind."""

from __future__ import annotations

from typing import Any

from prefect import State

from flows.salesforce_crm.notifications import Notification
from tasks.activation import RegisteredNames
from tasks.core.intake.inbox.consumer import ConsumerSettings
from tasks.core.intake.inbox.delivery import Delivery
from tasks.deliveries import handing_over_by, handle_deliveries, name_run
from tasks.integration_flow import flow

SIBLINGS = {
    "opportunity-created": "salesforce_opportunity_created",
    "opportunity-updated": "salesforce_opportunity_updated",
    "contact-created": "salesforce_contact_created",
}
"""Which sibling takes the notifications of which registration."""


@flow(name="salesforce-crm", flow_run_name=name_run)
async def salesforce_crm(
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(),  # noqa: B008 - immutable, shown in the run form
) -> State[Any]:
    """Hand each waiting notification to the sibling flow that its outbound message belongs to.

    A notification says by which outbound message it was sent, and the ledger of registrations
    which one that is; what the record looks like decides nothing, since Salesforce sends it as
    it is when it sends, not as it was when it happened.

    Args:
        payload: A sample notification to examine in place of what is waiting.
        consumer: How the run goes about waiting deliveries.
    """
    names = RegisteredNames("salesforce_crm")

    def decide(delivery: Delivery) -> str | None:
        notification = delivery.parse(Notification)
        return SIBLINGS.get(names.name_of(notification.action_id, record=delivery.id))

    return await handle_deliveries(
        "salesforce_crm", handing_over_by(decide), settings=consumer, payload=payload
    )
