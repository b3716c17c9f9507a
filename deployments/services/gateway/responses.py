"""The answers of the gateway, prepared once and sent many times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.types import Send

from tasks.core.intake.webhooks.request import Acknowledgement

RETRY_AFTER_S = 5
_JSON = "application/json"
_NO_CONTENT = 204


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One HTTP response as its two ASGI messages."""

    status: int
    start: dict[str, Any]
    body: dict[str, Any]

    async def send(self, send: Send) -> None:
        """Send it."""
        await send(self.start)
        await send(self.body)


def respond(
    status: int,
    body: bytes = b"",
    content_type: str | None = None,
    *headers: tuple[str, str],
    closes: bool = False,
) -> HttpResponse:
    """Prepare a response.

    Args:
        status: Of HTTP.
        body: May be empty.
        content_type: Of the body.
        headers: Further ones.
        closes: Whether the connection cannot be used again, because a body was not read.
    """
    sent = [*headers]
    if status != _NO_CONTENT:  # which has no length either, RFC 9110 §8.6
        sent.append(("content-length", str(len(body))))
    if content_type is not None:
        # What a sender wrote may stand in the answer; nobody shall take it for a page.
        sent += [("content-type", content_type), ("x-content-type-options", "nosniff")]
    if closes:
        sent.append(("connection", "close"))
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent]
    return HttpResponse(
        status,
        {"type": "http.response.start", "status": status, "headers": raw},
        {"type": "http.response.body", "body": body},
    )


def refusal(
    status: int, error: str, *headers: tuple[str, str], closes: bool = False
) -> HttpResponse:
    """Prepare an answer that says in a few words what is wrong."""
    return respond(status, orjson.dumps({"error": error}), _JSON, *headers, closes=closes)


def acknowledge(acknowledgement: Acknowledgement) -> HttpResponse:
    """The answer that a sender requires."""
    return respond(200, acknowledgement.body, acknowledgement.content_type)


def receipt(delivery_ids: Sequence[str]) -> HttpResponse:
    """The ids under which the deliveries are found."""
    return respond(202, orjson.dumps({"deliveries": list(delivery_ids)}), _JSON)


def not_stored(retry_after_s: float | None = None) -> HttpResponse:
    """Nothing was stored; the sender is asked to come back."""
    seconds = str(max(1, round(retry_after_s or RETRY_AFTER_S)))
    return refusal(503, "not stored, try again", ("retry-after", seconds))


ACCEPTED = respond(202)
OK = respond(200)
NO_CONTENT = respond(204)
MALFORMED = refusal(400, "malformed")
UNAUTHENTIC = refusal(401, "not authenticated")
FORBIDDEN = refusal(403, "address not allowed", closes=True)
NOT_FOUND = refusal(404, "no such endpoint", closes=True)
TIMED_OUT = refusal(408, "the body did not arrive in time", closes=True)
TOO_LARGE = refusal(413, "body too large", closes=True)
HEAD_TOO_LARGE = refusal(431, "headers too large", closes=True)
OVERLOADED = refusal(503, "overloaded", ("retry-after", str(RETRY_AFTER_S)), closes=True)
NOT_SET_UP = refusal(503, "this endpoint is not set up yet", ("retry-after", "300"), closes=True)


def wrong_method(methods: Sequence[str]) -> HttpResponse:
    """Says which methods there are."""
    return refusal(405, "method not allowed", ("allow", ", ".join(methods)), closes=True)
