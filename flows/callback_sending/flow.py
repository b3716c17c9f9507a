"""Send the results of requests to the addresses that their callers left when they hung up."""

from __future__ import annotations

from typing import Any

from prefect import State

from blocks.callback_signature import CallbackSignature
from flows.callback_sending.callbacks import SendCallback, send_result
from tasks.connections import load_connection
from tasks.deliveries import ConsumerSettings, Delivery, Outcome, handle_deliveries
from tasks.integration_flow import flow, run_name
from tasks.request_reply import CALLBACK_EVENT, CALLBACKS, Requests
from tasks.state import state_database


@flow(name="callback-sending", flow_run_name=run_name())
async def callback_sending(
    payload: dict[str, Any] | None = None,
    consumer: ConsumerSettings = ConsumerSettings(),
) -> State[Any]:
    """Take the waiting results and send each to its callback address, signed.

    An address that is out of reach or busy is tried again, with longer and longer waits; one
    that refuses, redirects, is gone, or leads where it may not, dead-letters the delivery.
    """
    signatures: dict[str, CallbackSignature] = {}

    async def load_signature(slug: str) -> CallbackSignature:
        if slug not in signatures:
            signatures[slug] = await load_connection(slug, CallbackSignature)
        return signatures[slug]

    async with state_database() as engine:
        requests = Requests(engine)

        async def handle(delivery: Delivery) -> Outcome | None:
            callback = delivery.parse(SendCallback)
            return await send_result(requests, callback, delivery.idempotency_key, load_signature)

        return await handle_deliveries(
            CALLBACKS, handle, settings=consumer, payload=payload, event=CALLBACK_EVENT
        )
