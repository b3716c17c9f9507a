"""Send the results of requests to the addresses that their callers left when they hung up."""

from __future__ import annotations

from typing import Any

from prefect import State

from blocks.callback_signature import CallbackSignature
from flows.callback_sending.callbacks import SendCallback, send_result
from tasks.connections import load_connection
from tasks.core.intake.inbox.consumer import ConsumerSettings
from tasks.core.intake.inbox.delivery import Delivery, Outcome
from tasks.core.intake.inbox.request_ending import CALLBACK_EVENT, CALLBACKS
from tasks.core.intake.request_reply.requests import Requests
from tasks.core.state.database import open_database
from tasks.deliveries import handle_deliveries, name_run
from tasks.integration_flow import flow


@flow(name="callback-sending", flow_run_name=name_run)
async def callback_sending(
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(),  # noqa: B008 - immutable, shown in the run form
) -> State[Any]:
    """Take the waiting results and send each to its callback address, signed.

    An address that is out of reach or busy is tried again, with longer and longer waits; one
    that refuses, redirects, is gone, or leads where it may not, parks the delivery.

    Args:
        payload: A sample {"request": id} to send in place of what is waiting.
        consumer: How the run goes about waiting deliveries.
    """
    signatures: dict[str, CallbackSignature] = {}
    engine = open_database()
    requests = Requests(engine)

    async def load_signature(slug: str) -> CallbackSignature:
        if slug not in signatures:
            signatures[slug] = await load_connection(slug, CallbackSignature)
        return signatures[slug]

    async def handle(delivery: Delivery) -> Outcome | None:
        callback = delivery.parse(SendCallback)
        return await send_result(requests, callback, delivery.idempotency_key, load_signature)

    try:
        return await handle_deliveries(
            CALLBACKS, handle, settings=consumer, payload=payload, event=CALLBACK_EVENT
        )
    finally:
        engine.dispose()
