"""Quote prices to callers that wait: the application's prices and stock, a third party's tax."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from prefect import State

from blocks.http_api import HttpApi
from flows.price_quote.quotes import QuoteRequest, TaxPolicy, make_quote, priced_lines
from flows.price_quote.tax import ask_for_tax, in_time
from tasks.api import open_api
from tasks.connections import load_connection
from tasks.core.intake.inbox.consumer import ConsumerSettings
from tasks.core.intake.inbox.delivery import Delivery
from tasks.core.intake.inbox.reply import Reply
from tasks.deliveries import name_run
from tasks.integration_flow import flow
from tasks.request_reply import REPLYING, reply_to_requests, report_progress


@flow(name="price-quote", flow_run_name=name_run)
async def price_quote(
    application: str = "http-api/own-app",
    tax_service: str = "http-api/tax",
    tax_patience_s: float = 2.0,
    when_tax_is_late: TaxPolicy = "leave out",
    estimated_tax_rates: dict[str, Decimal] | None = None,
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = REPLYING,
) -> State[Any]:
    """Answer the waiting requests for quotes, each with prices, stock and tax.

    A caller that waits gets its answer at once; one that has hung up finds it where it was told,
    or at its callback address. The same flow serves both.

    Args:
        application: The block of the application that knows products and stock.
        tax_service: The block of the third party that calculates tax.
        tax_patience_s: Seconds to wait for it.
        when_tax_is_late: Leave the tax out and say so, estimate it, or fail.
        estimated_tax_rates: Rate by country for estimates, e.g. {"DE": "0.19"}; the tax is left
            out for other countries.
        payload: A sample request to answer in place of what is waiting.
        consumer: How the run goes about waiting requests.
    """
    app_block, tax_block = await asyncio.gather(
        load_connection(application, HttpApi), load_connection(tax_service, HttpApi)
    )
    with (
        # one attempt a call: somebody waits
        open_api(app_block.model_copy(update={"max_attempts": 1})) as own_app,
        open_api(in_time(tax_block, tax_patience_s)) as tax_api,
    ):

        def respond(delivery: Delivery) -> Reply:
            wanted = delivery.parse(QuoteRequest)
            report_progress("looking up prices and stock", 20)
            lines = priced_lines(own_app, wanted)
            if isinstance(lines, Reply):
                return lines
            report_progress("asking for the tax", 60)
            tax = ask_for_tax(tax_api, wanted, lines)
            return make_quote(wanted, lines, tax, when_tax_is_late, estimated_tax_rates or {})

        return await reply_to_requests(
            "price_quote", respond, settings=consumer, payload=payload, event="quote"
        )
