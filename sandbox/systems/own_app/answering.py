"""Reads requests' bodies, and carries out each write once for its idempotency key."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from sandbox.systems.own_app.problems import ProblemError
from sandbox.systems.own_app.store import Answer, Store

MAX_BODY_BYTES = 64 * 1024 * 1024
_LONGEST_SOURCE = 200


class Result(NamedTuple):
    """The outcome of a write: its answer, and how many records it concerned."""

    status: int
    body: bytes
    records: int = 1


def write(request: Request, store: Store, body: bytes, apply: Callable[[], Result]) -> Response:
    """Carry out a write, once for its idempotency key; refused writes are not remembered.

    What it changes is told to subscribers with the request's `X-Source`, so that an integration
    knows its own changes again.
    """
    key = request.headers.get("Idempotency-Key")
    source = request.headers.get("X-Source", "")[:_LONGEST_SOURCE] or None
    if key is None:
        with store.transaction(source=source):
            result = apply()
    else:
        digest = sha256(
            b"\n".join([request.method.encode(), request.url.path.encode(), body])
        ).digest()
        if (earlier := store.recall(key)) is not None:
            return _replay(request, earlier, digest)
        with store.transaction(source=source):
            result = apply()
            store.remember(key, Answer(digest, result.status, result.body))
    request.state.records = result.records
    return json_response(result.status, result.body)


def require_idempotency_key(request: Request) -> None:
    """Refuse a request without."""
    if not request.headers.get("Idempotency-Key"):
        raise ProblemError(400, "this request needs an Idempotency-Key header; nothing was changed")


async def read_body(request: Request) -> bytes:
    """The whole body, if it is not too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ProblemError(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def json_response(status: int, body: bytes) -> Response:
    """An answer whose body is JSON already, or empty."""
    return Response(body, status_code=status, media_type="application/json" if body else None)


def _replay(request: Request, earlier: Answer, digest: bytes) -> Response:
    if earlier.digest != digest:
        raise ProblemError(
            422, "this Idempotency-Key was used for another request; nothing was changed"
        )
    request.state.replayed = True
    response = json_response(earlier.status, earlier.body)
    response.headers["Idempotency-Replayed"] = "true"
    return response
