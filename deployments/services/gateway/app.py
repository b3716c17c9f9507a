"""The gateway as an ASGI application: the declared endpoints, health, readiness and metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from deployments.services.gateway import responses
from deployments.services.gateway.access_log import AccessLog
from deployments.services.gateway.declared_paths import LoggedPaths
from deployments.services.gateway.endpoints import Endpoint, UnusableEndpoint
from deployments.services.gateway.forwarding import Forwarding
from deployments.services.gateway.metrics import Metrics
from deployments.services.gateway.notifier import CountRuns, Notifier, Post
from deployments.services.gateway.receiver import Confirm, Limits, Receiver
from deployments.services.gateway.request_reply import RequestReply
from deployments.services.gateway.secret_renewal import Made, Renewal
from deployments.services.gateway.status_resources import StatusResources
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.registry.declarations import REQUESTS_PATH, RESERVED_PATHS

_LOG = logging.getLogger(__name__)
_UNREADY_AFTER_FAILURE_S = 10.0
_CONFIRM_TIMEOUT_S = 5.0


class Gateway:
    """Receives webhooks.

    Args:
        endpoints: From `make_endpoints`.
        writer: Where deliveries are stored; started and closed with the application.
        post_event: Tells Prefect that something waits.
        count_runs: How many runs take an integration's deliveries.
        forwarding: What is known about proxies and public URLs.
        access_log: Where requests are told.
        confirm: Confirms subscriptions.
        limits: What bounds memory and time.
        changed_endpoints: As `StoredSecretsWatch.changed`.
        request_reply: Has the requests answered whose callers wait; without it, synchronous
            endpoints cannot be served. Started and closed with the application.
        operation_port: The port that health, readiness and metrics are served on, and nothing
            else; without it, they are served wherever the endpoints are.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint | UnusableEndpoint],
        *,
        writer: InboxWriter,
        post_event: Post,
        count_runs: CountRuns,
        forwarding: Forwarding,
        access_log: AccessLog,
        confirm: Confirm | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        changed_endpoints: Callable[[], Made | None] = lambda: None,
        request_reply: RequestReply | None = None,
        operation_port: int | None = None,
    ) -> None:
        self._operation_port = operation_port
        self._access_log = access_log
        self._metrics = Metrics()
        self._writer = writer
        self._notifier = Notifier(post_event, count_runs, self._metrics)
        self._receiver = Receiver(
            writer=writer,
            notifier=self._notifier,
            forwarding=forwarding,
            metrics=self._metrics,
            access_log=access_log,
            confirm=confirm or confirm_subscription,
            limits=limits,
            renewed=self._renewed,
            request_reply=request_reply,
        )
        self._request_reply = request_reply
        self._statuses = None if request_reply is None else StatusResources(request_reply)
        self._use(endpoints)
        self._renewal = Renewal(changed_endpoints, self._use)
        self._is_serving = False
        self._operation = Starlette(
            routes=[
                Route("/healthz", self._health),
                Route("/readyz", self._readiness),
                Route("/metrics", self._exposition),
            ],
            lifespan=self._lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what ASGI servers bring."""
        if scope["type"] != "http" or self._is_operation(scope):
            await self._operation(scope, receive, send)
            return
        endpoint = self._endpoints.get(scope["path"])
        if endpoint is not None:
            await self._receiver.serve(endpoint, scope, receive, send)
            return
        started = time.perf_counter()
        if self._statuses is not None and scope["path"].startswith(REQUESTS_PATH):
            status, outcome = await self._statuses.serve(scope, receive, send)
            self._metrics.count_request("requests", outcome, time.perf_counter() - started)
            self._access_log.write(
                datetime.now(UTC),
                endpoint="requests",
                method=scope["method"],
                status=status,
                outcome=outcome,
            )
            return
        unusable = next((each for each in self._unusable if each.may_be_at(scope["path"])), None)
        if unusable is not None and unusable.has_stored_secrets:
            await self._renewal.look()
            endpoint = self._endpoints.get(scope["path"])
            if endpoint is not None:
                await self._receiver.serve(endpoint, scope, receive, send)
                return
        reply = responses.NOT_FOUND if unusable is None else responses.NOT_SET_UP
        await reply.send(send)
        name = "" if unusable is None else unusable.name
        outcome = "not found" if unusable is None else "not set up"
        self._metrics.count_request(name, outcome, time.perf_counter() - started)
        self._access_log.write(
            datetime.now(UTC),
            endpoint=name or None,
            path=self._logged_paths.shown(scope["path"]) if unusable is None else None,
            method=scope["method"],
            status=reply.status,
            outcome=outcome,
            reason=None if unusable is None else unusable.reason,
        )

    def _is_operation(self, scope: Scope) -> bool:
        if self._operation_port is None:
            return scope["path"] in RESERVED_PATHS
        return bool(scope["server"][1] == self._operation_port)

    def _use(self, endpoints: Sequence[Endpoint | UnusableEndpoint]) -> None:
        self._endpoints = {each.path: each for each in endpoints if isinstance(each, Endpoint)}
        unusable = [each for each in endpoints if isinstance(each, UnusableEndpoint)]
        self._unusable = sorted(unusable, key=lambda each: each.path is None)  # known paths first
        self._logged_paths = LoggedPaths(each.declared_path for each in endpoints)

    async def _renewed(self, endpoint: Endpoint) -> Endpoint:
        await self._renewal.look()
        return self._endpoints.get(endpoint.path, endpoint)

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        await self._writer.start()
        self._renewal.start()
        if self._request_reply is not None:
            await self._request_reply.start()
        self._is_serving = True
        try:
            yield
        finally:
            self._is_serving = False
            await self._renewal.close()
            if self._request_reply is not None:
                await self._request_reply.close()
            await self._writer.close()
            await self._notifier.close()
            self._receiver.close()
            self._access_log.flush()

    async def _health(self, _request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _readiness(self, _request: Request) -> Response:
        failed_at = self._receiver.store_failed_at
        fails = failed_at is not None and time.monotonic() - failed_at < _UNREADY_AFTER_FAILURE_S
        is_ready = self._is_serving and not fails
        state = {
            "status": "ready" if is_ready else "not ready",
            "endpoints": len(self._endpoints),
            "not_set_up": [each.name for each in self._unusable],
        }
        return JSONResponse(state, status_code=200 if is_ready else 503)

    async def _exposition(self, _request: Request) -> Response:
        return Response(self._metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


async def confirm_subscription(url: str) -> bool:
    """GET the URL, which was checked to be the provider's own; no redirect is followed."""
    try:
        async with httpx.AsyncClient(timeout=_CONFIRM_TIMEOUT_S) as client:
            response = await client.get(url, follow_redirects=False)
    except httpx.HTTPError as exc:
        _LOG.warning("a subscription could not be confirmed (%s)", type(exc).__name__)
        return False
    return response.is_success
