"""A caller's own server, where results are sent back to: it verifies who sent them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from blocks.errors import SignatureInvalidError
from sandbox.systems.web_server import WebServer
from tasks.core.intake.webhooks.verifier import verify


@dataclass
class CallbackReceiver:
    """A running receiver.

    Attributes:
        secret: What results are signed with.
        port: 0 for a free one.
        received: The authentic results, oldest first.
        answers: Statuses for the next requests, before it answers 204 again.
        on_result: Called with each result.
    """

    secret: str
    port: int = 0
    received: list[dict[str, Any]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    on_result: Callable[[dict[str, Any]], None] = lambda _result: None

    def __enter__(self) -> Self:
        """Listen."""
        routes = [Route("/{path:path}", self._take, methods=["POST"])]
        self._server = WebServer(Starlette(routes=routes), port=self.port, name="callbacks")
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._server.stop()

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._server.url

    async def _take(self, request: Request) -> Response:
        body = await request.body()
        try:
            verify(
                "standard-webhooks",
                secrets=[self.secret],
                method="POST",
                url=str(request.url),
                headers=request.headers,
                body=body,
                now=datetime.now(UTC),
            )
        except SignatureInvalidError:
            return Response(status_code=401)
        if self.answers:
            return Response(status_code=self.answers.pop(0), headers={"Location": "/elsewhere"})
        result: dict[str, Any] = orjson.loads(body)
        self.received.append(result)
        self.on_result(result)
        return Response(status_code=204)
