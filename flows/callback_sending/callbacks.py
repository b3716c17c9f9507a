"""What a result that waits for its callback says, and how it is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pydantic import BaseModel

from blocks.callback_signature import CallbackSignature
from tasks.core.threads import in_thread
from tasks.deliveries import Outcome, done, ignored
from tasks.request_reply import Requests, callback_body, send_callback


class SendCallback(BaseModel):
    """One result to be sent."""

    request: str


async def send_result(
    requests: Requests,
    callback: SendCallback,
    message_id: str,
    load_signature: Callable[[str], Awaitable[CallbackSignature]],
) -> Outcome:
    """Send the result as it is now; one that is not kept any more is nobody's any more.

    Args:
        requests: Where the result is.
        callback: Which.
        message_id: The same each time it is sent.
        load_signature: Gives the block of a slug.

    Raises:
        IntegrationError: As in `tasks.core.intake.request_reply.callbacks.send_callback`.
    """
    request = await in_thread(requests.read, callback.request)
    if request is None or request.reply is None or request.callback is None:
        return ignored("its result is not kept any more")
    signature = await load_signature(request.callback.signed_by)
    status = await in_thread(
        send_callback,
        request.callback,
        callback_body(request, request.callback.location),
        message_id=message_id,
        secrets=[each.get_secret_value() for each in signature.secrets],
        timeout_s=signature.timeout_s,
    )
    return done(f"the receiver answered {status}")
