"""Keep the application's tickets and the helpdesk's in step: by events there, by schedule back."""

from __future__ import annotations

from typing import Any

from prefect import State
from pydantic import AwareDatetime
from sqlalchemy import Engine

from blocks.http_api import HttpApi
from flows.support_tickets.exporting import TicketExport
from flows.support_tickets.importing import TicketSink
from flows.support_tickets.tickets import CHANGED_TICKETS, KIND, HelpdeskTicket, shown_fields
from tasks.api import ApiClient, open_api_for_deliveries
from tasks.connections import load_connection
from tasks.data_import import (
    DataImport,
    IncrementalList,
    backfill_range,
    import_and_show,
)
from tasks.deliveries import ConsumerSettings, handle_deliveries
from tasks.exports import published_events
from tasks.integration_flow import flow, run_name
from tasks.state import state_database
from tasks.two_way import IdentityMap


@flow(name="support-tickets-export", flow_run_name=run_name())
async def support_tickets_export(
    application: str = "http-api/own-app",
    helpdesk: str = "http-api/helpdesk",
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(),
) -> State[Any]:
    """Take the waiting ticket events and bring the helpdesk's tickets in step with them.

    What the application decides of a ticket is sent, if it has changed since it was last sent; a
    change that came from the helpdesk goes no further. What the helpdesk refuses is dead-lettered
    with its own words. Retry handles what this run failed to handle.

    Args:
        application: The block of the application whose tickets they are.
        helpdesk: The block of the helpdesk's API.
    """
    async with (
        state_database() as engine,
        open_api_for_deliveries(application) as own_app,
        open_api_for_deliveries(helpdesk) as helpdesk_api,
    ):
        export = TicketExport(
            published_events(own_app),
            own_app,
            helpdesk_api,
            IdentityMap(engine, KIND),
            is_sample=payload is not None,
        )
        return await handle_deliveries(
            "support_tickets", export.handle, settings=consumer, payload=payload
        )


@flow(name="support-tickets-import", flow_run_name=run_name("{stream}"))
async def support_tickets_import(
    stream: str = "helpdesk-tickets",
    helpdesk: str = "http-api/helpdesk",
    application: str = "http-api/own-app",
    tickets: IncrementalList = CHANGED_TICKETS,
    backfill_from: AwareDatetime | None = None,
    backfill_until: AwareDatetime | None = None,
    import_retries: int = 2,
    import_retry_delay_s: float = 10,
) -> State[Any]:
    """Bring the application's tickets in step with those that changed at the helpdesk.

    A ticket that began at the helpdesk is made in the application; of the others, status and
    assignee follow. Retry, like the next run, goes on at the page where this run stopped.

    Args:
        stream: Names the cursor, which show-import-cursors shows and set-import-cursor sets.
        helpdesk: The block of the helpdesk's API.
        application: The block of the application that takes the tickets.
        tickets: The list in the API and how it is read.
        backfill_from: Look at a range again, which begins here; the cursor stays where it is.
        backfill_until: Where the range ends; what changed at this very instant is not in it.
        import_retries: How often an interrupted import is tried again within the run.
        import_retry_delay_s: Seconds before that.
    """
    what = DataImport(
        stream=stream,
        source=await load_connection(helpdesk, HttpApi),
        listing=tickets,
        application=await load_connection(application, HttpApi),
        resource="tickets",
        model=HelpdeskTicket,
        reshape=shown_fields,
        backfill=backfill_range(backfill_from, backfill_until),
        sink=_sink,
    )
    return await import_and_show(what, retries=import_retries, retry_delay_s=import_retry_delay_s)


def _sink(engine: Engine, application: ApiClient) -> TicketSink:
    return TicketSink(IdentityMap(engine, KIND), application)
