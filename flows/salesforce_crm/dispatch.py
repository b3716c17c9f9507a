"""Pre-process flow: one endpoint for all that Salesforce tells, a sibling flow for each kind."""

from __future__ import annotations

from typing import Any

from prefect import State

from flows.salesforce_crm.notifications import Notification
from tasks.activation import RegisteredNames
from tasks.deliveries import ConsumerSettings, Delivery, handing_over_by, handle_deliveries
from tasks.integration_flow import flow, run_name

SIBLINGS = {
    "opportunity-created": "salesforce_opportunity_created",
    "opportunity-updated": "salesforce_opportunity_updated",
    "contact-created": "salesforce_contact_created",
}
"""Which sibling takes the notifications of which registration."""


@flow(name="salesforce-crm", flow_run_name=run_name())
async def salesforce_crm(
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(),
) -> State[Any]:
    """Hand each waiting notification to the sibling flow that its outbound message belongs to.

    A notification says by which outbound message it was sent, and the ledger of registrations
    which one that is; what the record looks like decides nothing, since Salesforce sends it as
    it is when it sends, not as it was when it happened.
    """
    names = RegisteredNames("salesforce_crm")

    def decide(delivery: Delivery) -> str | None:
        notification = delivery.parse(Notification)
        return SIBLINGS.get(names.name_of(notification.action_id, record=delivery.id))

    return await handle_deliveries(
        "salesforce_crm", handing_over_by(decide), settings=consumer, payload=payload
    )
