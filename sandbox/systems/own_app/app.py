"""The API as one ASGI application: who may call, what is under way, and what it was told to do.

POST   /api/v1/{resource}/batch                 upsert records, all or none
GET    /api/v1/{resource}?limit&cursor&updated_since&field=text
PUT    /api/v1/{resource}/{key}                 and GET, PATCH (RFC 7396), DELETE
POST   /api/v1/inventory/{sku}/adjustments      add, remove or set stock
POST   /api/v1/webhooks                         subscribe to events; and GET
PATCH  /api/v1/webhooks/{id}                    and GET, DELETE
POST   /api/v1/webhooks/{id}/ping               send an event now that only tries
GET    /api/v1/asyncapi.json                    what events hold
GET    /                                        what is stored, for people
PUT    /sandbox/behaviour                       and GET
GET    /sandbox/requests                        and DELETE

`If-Match: "<version>"` lets a change of a record happen only if it is still that version, and
`If-None-Match: *` only if it is not there; otherwise the answer is 412.
"""

from __future__ import annotations

import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from sandbox.systems.own_app import endpoints, webhooks
from sandbox.systems.own_app.behaviour import Behaviour, CutResponse
from sandbox.systems.own_app.courier import Courier
from sandbox.systems.own_app.page import render_page
from sandbox.systems.own_app.problems import ProblemError, from_http_exception, invalid_body
from sandbox.systems.own_app.request_log import LoggedRequest, RequestLog
from sandbox.systems.own_app.store import Store

API = "/api/v1"
Endpoint = Callable[[Request, Store], Awaitable[Response]]


def create_app(database: Path, api_keys: Sequence[str]) -> Starlette:
    """The application on its SQLite file.

    Args:
        database: Made with its folder if it is not there.
        api_keys: What `X-API-Key` may be.
    """
    store = Store(database)
    courier = Courier(store)
    own_app = _OwnApp(store, courier, api_keys)

    def api(path: str, method: str, endpoint: Endpoint) -> Route:
        return Route(API + path, own_app.guarded(path, endpoint), methods=[method])

    app = Starlette(
        routes=[
            api("/asyncapi.json", "GET", endpoints.publish_events),
            api("/webhooks", "POST", webhooks.add_webhook),
            api("/webhooks", "GET", webhooks.list_webhooks),
            api("/webhooks/{id}", "GET", webhooks.get_webhook),
            api("/webhooks/{id}", "PATCH", webhooks.change_webhook),
            api("/webhooks/{id}", "DELETE", webhooks.remove_webhook),
            api("/webhooks/{id}/ping", "POST", webhooks.ping_webhook(courier.ping)),
            api("/{resource}/batch", "POST", endpoints.store_batch),
            api("/{resource:str}", "GET", endpoints.list_records),
            api("/inventory/{key:path}/adjustments", "POST", endpoints.adjust_stock),
            api("/{resource}/{key:path}", "GET", endpoints.get_record),
            api("/{resource}/{key:path}", "PUT", endpoints.put_record),
            api("/{resource}/{key:path}", "PATCH", endpoints.patch_record),
            api("/{resource}/{key:path}", "DELETE", endpoints.delete_record),
            Route("/", own_app.page),
            Route("/sandbox/behaviour", own_app.set_behaviour, methods=["PUT"]),
            Route("/sandbox/behaviour", own_app.get_behaviour),
            Route("/sandbox/requests", own_app.get_requests),
            Route("/sandbox/requests", own_app.clear_requests, methods=["DELETE"]),
        ],
        exception_handlers={HTTPException: from_http_exception},
        lifespan=own_app.lifespan,
    )
    app.state.store = store
    app.state.courier = courier
    return app


class _OwnApp:
    def __init__(self, store: Store, courier: Courier, api_keys: Sequence[str]) -> None:
        self._store = store
        self._courier = courier
        self._api_keys = [key.encode() for key in api_keys]
        self._behaviour = Behaviour()
        self._log = RequestLog()
        self._under_way: set[str] = set()

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        await self._courier.start()
        yield
        await self._courier.stop()
        self._store.close()

    def guarded(self, path: str, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """Wrap an endpoint: log, key, idempotency keys under way, misbehaviour."""

        async def handle(request: Request) -> Response:
            arrived_at, started = datetime.now(UTC), time.perf_counter()
            request.state.records, request.state.replayed = 0, False
            try:
                response = await self._answer(request, endpoint)
            except ProblemError as problem:
                response = problem.response()
            self._log.add(
                LoggedRequest(
                    at=arrived_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                    method=request.method,
                    path=request.url.path,
                    route=API + _route(path, request),
                    status=None if isinstance(response, CutResponse) else response.status_code,
                    idempotency_key=request.headers.get("Idempotency-Key"),
                    replayed=request.state.replayed,
                    records=request.state.records,
                    duration_ms=round((time.perf_counter() - started) * 1000, 1),
                )
            )
            return response

        return handle

    async def _answer(self, request: Request, endpoint: Endpoint) -> Response:
        given = request.headers.get("X-API-Key", "").encode()
        if not any(hmac.compare_digest(given, key) for key in self._api_keys):
            raise ProblemError(401, "X-API-Key is missing or wrong")
        with self._one_at_a_time(request):
            if self._behaviour.meets(_resource(request)):
                return await self._behaviour.answer(lambda: endpoint(request, self._store))
            return await endpoint(request, self._store)

    @contextlib.contextmanager
    def _one_at_a_time(self, request: Request) -> Iterator[None]:
        key = request.headers.get("Idempotency-Key")
        if key is None:
            yield
            return
        if key in self._under_way:
            raise ProblemError(
                409, "a request with this key is still under way", headers={"Retry-After": "1"}
            )
        self._under_way.add(key)
        try:
            yield
        finally:
            self._under_way.discard(key)

    async def page(self, _request: Request) -> Response:
        return HTMLResponse(render_page(self._store, self._log, self._behaviour))

    async def get_behaviour(self, _request: Request) -> Response:
        return JSONResponse(self._behaviour.model_dump())

    async def set_behaviour(self, request: Request) -> Response:
        try:
            self._behaviour = Behaviour.model_validate_json(await request.body())
        except ValidationError as exc:
            return invalid_body(exc).response()
        return await self.get_behaviour(request)

    async def get_requests(self, _request: Request) -> Response:
        return JSONResponse(self._log.report())

    async def clear_requests(self, _request: Request) -> Response:
        self._log.clear()
        return Response(status_code=204)


def _resource(request: Request) -> str:
    named: str | None = request.path_params.get("resource")
    return named or request.url.path.removeprefix(API).split("/")[1]


def _route(path: str, request: Request) -> str:
    """The route with its resource filled in and its key left open."""
    resource = _resource(request)
    return (
        path.replace("{resource:str}", resource)
        .replace("{resource}", resource)
        .replace(":path}", "}")
    )
