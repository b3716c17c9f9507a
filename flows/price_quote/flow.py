"""Quote prices to callers that wait: the application's prices and stock, a third party's tax."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from prefect import State

from flows.price_quote.quotes import QuoteRequest, TaxPolicy, make_quote, priced_lines
from flows.price_quote.tax import ask_for_tax
from tasks.api import open_api_for_deliveries
from tasks.deliveries import ConsumerSettings, Delivery
from tasks.integration_flow import flow, run_name
from tasks.request_reply import REPLYING, Reply, reply_to_requests, report_progress


@flow(name="price-quote", flow_run_name=run_name())
async def price_quote(
    application: str = "http-api/own-app",
    tax_service: str = "http-api/tax",
    tax_timeout_s: float = 2.0,
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
        tax_timeout_s: Seconds to wait for it.
        when_tax_is_late: Leave the tax out and say so, estimate it, or fail.
        estimated_tax_rates: Rate by country for estimates, e.g. {"DE": "0.19"}; the tax is left
            out for other countries.
    """
    async with (
        open_api_for_deliveries(application) as own_app,
        open_api_for_deliveries(tax_service, timeout_s=tax_timeout_s) as tax_api,
    ):

        def respond(delivery: Delivery) -> Reply:
            request = delivery.parse(QuoteRequest)
            report_progress("looking up prices and stock", 20)
            lines = priced_lines(own_app, request)
            if isinstance(lines, Reply):
                return lines
            report_progress("asking for the tax", 60)
            tax = ask_for_tax(tax_api, request, lines)
            return make_quote(request, lines, tax, when_tax_is_late, estimated_tax_rates or {})

        return await reply_to_requests(
            "price_quote", respond, settings=consumer, payload=payload, event="quote"
        )
