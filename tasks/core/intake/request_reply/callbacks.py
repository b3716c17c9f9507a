"""Sends a result to the address its caller left: signed, to a checked address, never redirected."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from blocks.errors import MisconfiguredError
from tasks.core.connectors.http.errors import Where, from_httpx, from_status
from tasks.core.intake.inbox.reply import Reply
from tasks.core.intake.inbox.request_ending import CALLBACK_EVENT
from tasks.core.intake.request_reply.callback_address import Resolve, check_address
from tasks.core.intake.request_reply.requests import CallbackTarget, RequestView
from tasks.core.intake.webhooks.standard_signature import sign

_CONNECT_TIMEOUT_S = 5.0


def callback_body(request: RequestView, location: str) -> bytes:
    """What the caller receives: which request, how it ended, and its answer.

    JSON answers stand in `body` as JSON, any other in `body_base64`.
    """
    assert request.ended_at is not None  # noqa: S101 - results of ended requests are sent
    data: dict[str, Any] = {
        "request": request.id,
        "location": location,
        "state": request.state,
        "run": request.run_id,
    }
    if request.reply is not None:
        data |= shown_reply(request.reply)
    document = {"type": CALLBACK_EVENT, "timestamp": request.ended_at.isoformat(), "data": data}
    return orjson.dumps(document)


def shown_reply(reply: Reply) -> dict[str, Any]:
    """An answer as part of a JSON document."""
    shown: dict[str, Any] = {"status": reply.status}
    if reply.content_type is not None:
        shown["content_type"] = reply.content_type
    if reply.headers:
        shown["headers"] = dict(reply.headers)
    if not reply.body:
        return shown
    if _is_json(reply):
        return shown | {"body": orjson.Fragment(reply.body)}
    return shown | {"body_base64": base64.b64encode(reply.body).decode()}


def send_callback(
    target: CallbackTarget,
    body: bytes,
    *,
    message_id: str,
    secrets: Sequence[str],
    timeout_s: float = 15.0,
    tls: ssl.SSLContext | None = None,
    resolve: Resolve | None = None,
    now: datetime | None = None,
) -> int:
    """POST a result; any 2xx is a receipt.

    Args:
        target: Where, and what it may lead to.
        body: From `callback_body`.
        message_id: The same each time this result is sent.
        secrets: For the signature; with several each signs, while one is being changed.
        timeout_s: Of each silence.
        tls: Whom to trust; None for the public authorities.
        resolve: In place of the machine's resolver, for tests.
        now: When it is signed.

    Returns:
        The status.

    Raises:
        TransientError: Out of reach, busy or broken; try again.
        UpstreamRejectedError: Refused.
        MisconfiguredError: It redirects, is gone or wants credentials.
        BadPayloadError: The address may not be called.
    """
    now = now or datetime.now(UTC)
    checked = check_address(
        target.url,
        allowed_networks=target.allowed_networks,
        resolve=resolve,
    )
    where = Where(system=f"callback {checked.host}", operation="send result", record=message_id)
    url = httpx.URL(target.url)
    request = httpx.Request(
        "POST",
        url.copy_with(host=checked.address),
        content=body,
        headers={
            "Host": urlsplit(target.url).netloc,
            "Content-Type": "application/json",
            "User-Agent": "integration-patterns",
            **sign(secrets, message_id=message_id, at=now, body=body),
        },
        # the certificate must be for the name, though the connection is made to the address
        extensions={
            "sni_hostname": checked.host,
            "timeout": httpx.Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S).as_dict(),
        },
    )
    try:
        # an environment's proxy would resolve the name once more
        with httpx.Client(
            trust_env=False, follow_redirects=False, verify=tls or _public_authorities()
        ) as client:
            response = client.send(request, stream=True)
            response.close()  # what they say is of no interest, however long it is
    except httpx.HTTPError as exc:
        raise from_httpx(exc, where) from exc
    if response.status_code == 410:
        raise MisconfiguredError("the address is gone for good (410)", **where)
    error = from_status(response.status_code, response.headers, b"", where, now=now)
    if error is not None:
        raise error
    return response.status_code


def _is_json(reply: Reply) -> bool:
    """Whether the body can stand in a JSON document as it is."""
    media_type = (reply.content_type or "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        return False
    try:
        orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return False  # one that is labelled wrongly must not break the message around it
    return True


@lru_cache(maxsize=1)
def _public_authorities() -> ssl.SSLContext:
    # Loading them takes tens of milliseconds: once a process is enough.
    return httpx.create_ssl_context(trust_env=False)
