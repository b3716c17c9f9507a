"""Bring new contacts of Salesforce into the application."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import State

from flows.salesforce_crm.application import put_contact
from flows.salesforce_crm.notifications import Contact, both_sides
from tasks.core.intake.inbox.consumer import ConsumerSettings
from tasks.core.intake.inbox.delivery import Delivery, Outcome, ignored
from tasks.deliveries import handle_deliveries, name_run
from tasks.integration_flow import flow


@flow(name="salesforce-contact-created", flow_run_name=name_run)
async def contact_created(
    application: str = "http-api/own-app",
    salesforce: str = "http-api/salesforce",
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(concurrency=100),  # noqa: B008 - immutable
) -> State[Any]:
    """Take the waiting notifications of new contacts, fetch each, and put it into the application.

    A contact without an e-mail address is ignored: the application has nothing to do with it.

    Args:
        application: The block of the application that keeps contacts.
        salesforce: The block of Salesforce's REST API.
        payload: A sample notification to handle in place of what is waiting.
        consumer: How the run goes about waiting deliveries.
    """
    async with both_sides(application, salesforce, Contact) as (api, completion):

        async def handle(delivery: Delivery) -> Outcome | None:
            contact = await completion.complete(delivery, Contact)
            if isinstance(contact, Outcome):
                return contact
            if contact.email is None:
                return ignored("the contact has no e-mail address")
            await asyncio.to_thread(put_contact, api, contact)
            return None

        return await handle_deliveries(
            "salesforce_contact_created", handle, settings=consumer, payload=payload
        )
