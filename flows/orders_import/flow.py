"""Bring a marketplace's orders into the application, every two minutes: it has no webhooks."""

from __future__ import annotations

from typing import Any

from prefect import State
from pydantic import AwareDatetime

from blocks.http_api import HttpApi
from flows.orders_import.orders import ORDERS, order_of
from tasks.connections import load_connection
from tasks.data_import import (
    DataImport,
    IncrementalList,
    backfill_range,
    import_and_show,
)
from tasks.integration_flow import flow, run_name
from tasks.record_import import Order


@flow(name="orders-import", flow_run_name=run_name("{stream}"))
async def orders_import(
    stream: str = "marketplace-orders",
    source: str = "http-api/marketplace",
    application: str = "http-api/own-app",
    orders: IncrementalList = ORDERS,
    start_at: AwareDatetime | None = None,
    backfill_from: AwareDatetime | None = None,
    backfill_until: AwareDatetime | None = None,
    import_retries: int = 2,
    import_retry_delay_s: float = 10,
) -> State[Any]:
    """Import the orders that changed since the last run, or those of a range of time again.

    Retry, like the next run, goes on at the page where this run stopped.

    Args:
        stream: Names the cursor, which show-import-cursors shows and set-import-cursor sets.
        source: The block of the marketplace's API.
        application: The block of the application that takes the orders.
        orders: The list in the API and how it is read.
        start_at: Where the first import begins; empty: with the oldest order.
        backfill_from: Import a range again, which begins here; the cursor stays where it is.
        backfill_until: Where the range ends; what changed at this very instant is not in it.
        import_retries: How often an interrupted import is tried again within the run.
        import_retry_delay_s: Seconds before that.
    """
    what = DataImport(
        stream=stream,
        source=await load_connection(source, HttpApi),
        listing=orders,
        application=await load_connection(application, HttpApi),
        resource="orders",
        model=Order,
        reshape=order_of,
        start_at=start_at,
        backfill=backfill_range(backfill_from, backfill_until),
    )
    return await import_and_show(what, retries=import_retries, retry_delay_s=import_retry_delay_s)
