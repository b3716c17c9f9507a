"""What is measured: a flow that does nothing, and quotes; ours, and as stock Prefect has them."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from prefect import State, flow

from blocks.http_api import HttpApi
from flows.price_quote.quotes import Priced, QuoteRequest, make_quote, priced_lines
from flows.price_quote.tax import ask_for_tax
from tasks.api import open_api
from tasks.core.connectors.http.client import ApiClient
from tasks.core.intake.inbox.consumer import ConsumerSettings
from tasks.core.intake.inbox.delivery import Delivery
from tasks.core.intake.inbox.reply import Reply
from tasks.request_reply import REPLYING, reply_to_requests

WORK_S = 0.5
_CONCURRENCY = 8


@flow(name="nothing")
async def nothing(consumer: ConsumerSettings = REPLYING) -> State[Any]:
    """Answer at once, with the body that came."""

    async def respond(delivery: Delivery) -> Any:
        return delivery.json()

    return await reply_to_requests("measured_nothing", respond, settings=consumer)


@flow(name="work")
async def work() -> State[Any]:
    """Answer after half a second, eight at a time: sixteen a second and no more."""

    async def respond(delivery: Delivery) -> Any:
        await asyncio.sleep(WORK_S)
        return delivery.json()

    advanced = REPLYING.advanced.model_copy(update={"max_runs": 1})
    settings = REPLYING.model_copy(update={"concurrency": _CONCURRENCY, "advanced": advanced})
    return await reply_to_requests("measured_work", respond, settings=settings)


@flow(name="stock-nothing", persist_result=True)
async def stock_nothing(payload: dict[str, Any]) -> dict[str, Any]:
    """Return what came."""
    return payload


@flow(name="stock-quote", persist_result=True)
async def stock_quote(payload: dict[str, Any]) -> str:
    """The same quote, returned."""
    app = await HttpApi.aload("own-app")
    tax = await HttpApi.aload("tax")
    with open_api(app) as own_app, open_api(tax) as tax_api:
        return quote(own_app, tax_api, payload).body.decode()


def quote(own_app: ApiClient, tax_api: ApiClient, payload: dict[str, Any]) -> Reply:
    """The quote's logic, without anything around it."""
    wanted = QuoteRequest.model_validate(payload)
    lines = priced_lines(own_app, wanted)
    assert isinstance(lines, Priced)
    tax = ask_for_tax(tax_api, wanted, lines)
    rates: dict[str, Decimal] = {}
    return make_quote(wanted, lines, tax, "leave out", rates)
