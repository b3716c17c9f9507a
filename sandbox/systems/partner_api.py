"""What stand-ins of partners' HTTP APIs do alike: tokens, idempotency keys, and going wrong."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from pydantic import SecretStr, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from blocks.http_api import BearerAuth, HttpApi
from sandbox.systems.web_server import CutAnswer, WebServer

Act = Callable[[Request, bytes], Response]


@dataclass
class Faults:
    """What goes wrong until it is set back.

    Attributes:
        status: Answered instead of doing anything.
        retry_after_s: Told with it.
        lose_answer: The request is carried out or not, and then the connection is cut.
        remaining: After so many faulty answers all is well; None for never.
        methods: Only these go wrong.
    """

    status: int | None = None
    retry_after_s: int | None = None
    lose_answer: Literal["done", "not done"] | None = None
    remaining: int | None = None
    methods: frozenset[str] = frozenset({"POST", "PUT", "PATCH", "DELETE"})

    def take(self, method: str) -> bool:
        """Whether this request goes wrong; uses up one of `remaining`."""
        if not (self.status or self.lose_answer) or method not in self.methods:
            return False
        if self.remaining == 0:
            return False
        if self.remaining is not None:
            self.remaining -= 1
        return True


@dataclass(frozen=True, slots=True)
class Effect:
    """One write that was carried out: not one that an idempotency key answered."""

    method: str
    path: str
    idempotency_key: str | None
    body: bytes


class PartnerApi:
    """One API; a subclass gives its routes.

    Attributes:
        url: Where it listens.
        faults: What goes wrong.
        effects: Writes that were carried out, oldest first.
        attempts: How many writes were asked for.
    """

    name = "partner"
    base_path = ""

    def __init__(self) -> None:
        self.url = ""
        self.token = f"sandbox-{self.name}-token"
        self.faults = Faults()
        self.effects: list[Effect] = []
        self.attempts = 0
        self._answered: dict[str, tuple[bytes, Response]] = {}

    def routes(self) -> list[Route]:
        """The routes, each made by `route`."""
        raise NotImplementedError

    def block(self, **fields: Any) -> HttpApi:
        """The block for it; `fields` go before what would be right."""
        right = {
            "base_url": f"{self.url}{self.base_path}",
            "auth": BearerAuth(token=SecretStr(self.token)),
        }
        return HttpApi(**{**right, **fields})

    def route(self, method: str, path: str, act: Act, *, needs_key: bool = False) -> Route:
        """A route with everything around it; writes with a key are carried out once."""

        async def answer(request: Request) -> Response:
            body = await request.body()
            given = request.headers.get("Authorization", "").encode()
            if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
                return problem(401, "the token is wrong")
            if method != "GET":
                self.attempts += 1
            if not self.faults.take(method):
                return self._once(request, body, act, needs_key=needs_key)
            if self.faults.status is None:
                if self.faults.lose_answer == "done":
                    self._once(request, body, act, needs_key=needs_key)
                return CutAnswer()
            headers = {}
            if self.faults.retry_after_s is not None:
                headers["Retry-After"] = str(self.faults.retry_after_s)
            return problem(self.faults.status, "not now", headers=headers)

        return Route(self.base_path + path, answer, methods=[method])

    def _once(self, request: Request, body: bytes, act: Act, *, needs_key: bool) -> Response:
        key = request.headers.get("Idempotency-Key")
        if needs_key and not key:
            return problem(400, "an Idempotency-Key is needed")
        asked = b"\n".join([request.method.encode(), request.url.path.encode(), body])
        digest = sha256(asked).digest()
        if key is not None and key in self._answered:
            earlier, response = self._answered[key]
            if earlier != digest:
                return problem(422, "this Idempotency-Key was used for another request")
            return response
        response = act(request, body)
        if request.method != "GET" and response.status_code < 300:
            self.effects.append(Effect(request.method, request.url.path, key, body))
            if key is not None:
                self._answered[key] = (digest, response)
        return response


@contextmanager
def serving(api: PartnerApi, *, port: int = 0) -> Iterator[None]:
    """Serve until the block ends; 0 for a free port."""
    server = WebServer(Starlette(routes=api.routes()), port=port, name=f"{api.name}-sandbox")
    api.url = server.url
    try:
        yield
    finally:
        server.stop()


def problem(
    status: int,
    detail: str,
    *,
    errors: list[dict[str, str]] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """A refusal as RFC 9457 has it."""
    document: dict[str, Any] = {"status": status, "detail": detail}
    if errors:
        document["errors"] = errors
    return JSONResponse(document, status, headers=headers, media_type="application/problem+json")


def invalid(exc: ValidationError, detail: str) -> Response:
    """422 that names each field and what is wrong with it."""
    errors = [
        {"field": ".".join(map(str, each["loc"])), "reason": each["msg"]}
        for each in exc.errors(include_input=False, include_url=False)
    ]
    return problem(422, detail, errors=errors)
