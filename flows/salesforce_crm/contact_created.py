"""Bring new contacts of Salesforce into the application."""

from __future__ import annotations

from typing import Any

from prefect import State

from flows.salesforce_crm.application import put_contact
from flows.salesforce_crm.notifications import Contact, both_sides
from tasks.core.threads import in_thread
from tasks.deliveries import ConsumerSettings, Delivery, Outcome, handle_deliveries, ignored
from tasks.integration_flow import flow, run_name


@flow(name="salesforce-contact-created", flow_run_name=run_name())
async def contact_created(
    application: str = "http-api/own-app",
    salesforce: str = "http-api/salesforce",
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(concurrency=100),
) -> State[Any]:
    """Take the waiting notifications of new contacts, fetch each, and put it into the application.

    A contact without an e-mail address is ignored: the application has nothing to do with it.

    Args:
        application: The block of the application that keeps contacts.
        salesforce: The block of Salesforce's REST API.
    """
    async with both_sides(application, salesforce, Contact) as (api, completion):

        async def handle(delivery: Delivery) -> Outcome | None:
            contact = await completion.complete(delivery, Contact)
            if isinstance(contact, Outcome):
                return contact
            if contact.email is None:
                return ignored("the contact has no e-mail address")
            await in_thread(put_contact, api, contact)
            return None

        return await handle_deliveries(
            "salesforce_contact_created", handle, settings=consumer, payload=payload
        )
