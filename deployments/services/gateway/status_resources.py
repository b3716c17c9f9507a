"""Where callers find what became of their requests.

    GET    /requests/{id}          state, progress and, once it has ended, the result
    GET    /requests/{id}/result   the answer as it would have been given
    DELETE /requests/{id}          cancel it

The id cannot be guessed, and whoever knows it may ask; `Prefer: wait=N` waits for the end.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from blocks.errors import IntegrationError
from deployments.services.gateway import responses
from deployments.services.gateway.request_reply import RequestReply, reply_response
from deployments.services.gateway.responses import HttpResponse
from tasks.core.intake.inbox.reply import Reply
from tasks.core.intake.request_reply.callbacks import shown_reply
from tasks.core.intake.request_reply.preferences import Preference, read_preference
from tasks.core.intake.request_reply.requests import RequestView
from tasks.core.registry.declarations import REQUESTS_PATH

_ID = re.compile(r"[A-Za-z0-9_-]{32}", re.ASCII)
_LONGEST_WAIT_S = 30.0
_MOST_WAITING = 500
_LOOK_AGAIN = ("Retry-After", "1")
_NOT_KEPT = ("Cache-Control", "no-store")


class StatusResources:
    """Answers what callers ask about their requests.

    Args:
        request_reply: Knows the requests, and when they end.
    """

    def __init__(self, request_reply: RequestReply) -> None:
        self._requests = request_reply.requests
        self._waiters = request_reply.waiters
        self._closing = request_reply.closing
        self._waiting = 0

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> tuple[int, str]:
        """Answer one request about a request.

        Returns:
            The status, and the outcome as the access log names it.
        """
        request_id, _, rest = scope["path"].removeprefix(REQUESTS_PATH).partition("/")
        try:
            reply, outcome = await self._reply(scope, request_id, rest)
        except IntegrationError:
            reply, outcome = responses.not_stored(), "failed"
        await reply.send(send)
        return reply.status, outcome

    async def _reply(self, scope: Scope, request_id: str, rest: str) -> tuple[HttpResponse, str]:
        if not _ID.fullmatch(request_id) or rest not in ("", "result"):
            return _problem(404, "there is no such request"), "not found"
        methods = ("GET",) if rest else ("GET", "DELETE")
        if scope["method"] not in methods:
            return responses.wrong_method(methods), "wrong method"
        if scope["method"] == "DELETE":
            await asyncio.to_thread(self._requests.cancel, request_id, even_if_shared=True)
        preference = _preference(scope)
        with self._waiters.waiting_for(request_id) as ended:
            view = await asyncio.to_thread(self._requests.read, request_id)
            if view is not None and view.reply is None and view.state != "expired":
                view = await self._wait(view, ended, preference)
        if view is None:
            return _problem(404, "there is no such request"), "not found"
        if view.state == "expired":
            return _problem(410, "its result is not kept any more"), "expired"
        if rest and view.reply is not None:
            return reply_response(view.reply, _NOT_KEPT), "result"
        return _status(view, preference, 202 if rest else 200), "status"

    async def _wait(
        self, view: RequestView, ended: asyncio.Future[None], preference: Preference
    ) -> RequestView:
        if not preference.wait_s or self._waiting >= _MOST_WAITING:
            return view
        self._waiting += 1
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            ends: set[asyncio.Future[Any]] = {ended, closing}
            timeout_s = min(preference.wait_s, _LONGEST_WAIT_S)
            await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
            self._waiting -= 1
        return await asyncio.to_thread(self._requests.read, view.id) or view


def _preference(scope: Scope) -> Preference:
    return read_preference(
        value.decode("latin-1") for name, value in scope["headers"] if name == b"prefer"
    )


def _status(view: RequestView, preference: Preference, status: int) -> HttpResponse:
    document: dict[str, Any] = {
        "request": view.id,
        "state": view.state,
        "received_at": view.received_at,
        "ended_at": view.ended_at,
        "expires_at": view.expires_at,
        "run": view.run_id,
        "progress": None if view.progress is None else asdict(view.progress),
    }
    headers = [_NOT_KEPT]
    if view.reply is None:
        headers.append(_LOOK_AGAIN)
    else:
        document["result"] = shown_reply(view.reply)
    if applied := Preference(preference.wait_s).applied(_LONGEST_WAIT_S):
        headers.append(("Preference-Applied", applied))
    given = {name: value for name, value in document.items() if value is not None}
    return responses.respond(status, orjson.dumps(given), "application/json", *headers)


def _problem(status: int, detail: str) -> HttpResponse:
    return reply_response(Reply.problem(status, detail), _NOT_KEPT)
