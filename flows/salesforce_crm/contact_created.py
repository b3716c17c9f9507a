"""Bring new contacts of Salesforce into the application."""

from __future__ import annotations

from functools import partial
from typing import Any

from prefect import State

from flows.salesforce_crm.application import put_contact
from flows.salesforce_crm.notifications import Contact, current_records
from tasks.api import open_api_for_deliveries
from tasks.deliveries import ConsumerSettings, handle_deliveries
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
    async with (
        open_api_for_deliveries(application) as own_app,
        current_records(salesforce, Contact) as contacts,
    ):
        return await handle_deliveries(
            "salesforce_contact_created",
            contacts.handling_by(partial(put_contact, own_app)),
            settings=consumer,
            payload=payload,
        )
