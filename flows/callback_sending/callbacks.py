"""What a result that waits for its callback says, and how it is sent."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from blocks.callback_signature import CallbackSignature
from tasks.plain.inbox.delivery import Outcome, done, ignored
from tasks.plain.synchronous.callback_sending import callback_body, send_callback
from tasks.plain.synchronous.requests import CallbackTarget, Requests


class SendCallback(BaseModel):
    """One result to be sent; the gateway's own words, never a caller's."""

    request: str
    callback: CallbackTarget


async def send_result(
    requests: Requests, wanted: SendCallback, message_id: str, signature: CallbackSignature
) -> Outcome:
    """Send the result as it is now; one that is not kept any more is nobody's any more.

    Raises:
        IntegrationError: As in `tasks.plain.synchronous.callback_sending.send_callback`.
    """
    request = await asyncio.to_thread(requests.read, wanted.request)
    if request is None or request.answer is None or request.ended_at is None:
        return ignored("its result is not kept any more")
    status = await asyncio.to_thread(
        send_callback,
        wanted.callback,
        callback_body(request, wanted.callback.location),
        message_id=message_id,
        secrets=[each.get_secret_value() for each in signature.secrets],
        timeout_s=signature.timeout_s,
    )
    return done(f"the receiver answered {status}")
