"""Runs all sources of one process, with one inbox writer and one address for their status."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.services.listeners.declarations import DeclaredSource, UnusableSource
from deployments.services.listeners.listener import Listener, Pace
from deployments.services.listeners.metrics import ListenerMetrics
from deployments.services.listeners.retrying import retry
from deployments.services.listeners.status import SourceStatus
from tasks.core.intake.inbox.writer import InboxWriter

_LOG = logging.getLogger(__name__)
_MAX_BODY_BYTES = 256 * 1024 * 1024
_MAX_WAITING_BYTES = 2 * _MAX_BODY_BYTES
_CLOSE_WRITER_S = 2.0


class Listeners:
    """Listens to every declared source.

    Args:
        engine: The state database, with its tables.
        declared: From `read_declarations`.
        notify: Called with an integration's name when something new is stored.
        pace: Batch size, intervals and timeouts.
    """

    def __init__(
        self,
        engine: Engine,
        declared: Sequence[DeclaredSource | UnusableSource],
        *,
        notify: Callable[[str], None],
        pace: Pace = Pace(),  # noqa: B008 - immutable
    ) -> None:
        self.metrics = ListenerMetrics()
        self._writer = InboxWriter(
            engine,
            max_body_bytes=_MAX_BODY_BYTES,
            max_waiting_bytes=_MAX_WAITING_BYTES,
            in_own_process=True,
        )
        self._finish_s = pace.finish_s
        self._unusable = [each for each in declared if isinstance(each, UnusableSource)]
        self._listeners = [
            self._listener(each, notify, pace)
            for each in declared
            if isinstance(each, DeclaredSource)
        ]

    @property
    def statuses(self) -> list[SourceStatus]:
        """The status of each source."""
        return [each.status for each in self._listeners]

    async def run(self, until: asyncio.Event) -> None:
        """Listen until the event is set, then finish received messages within fifteen seconds.

        Messages that take longer are left unacknowledged, so they are redelivered.
        Nothing is subscribed to before the database responds.
        """
        try:
            await retry(self._writer.start, until=until)
            async with asyncio.TaskGroup() as group:
                listening = [
                    group.create_task(listener.run(), name=listener.status.name)
                    for listener in (() if until.is_set() else self._listeners)
                ]
                await until.wait()
                await self._stop(listening)
        finally:
            await self._writer.close(timeout_s=_CLOSE_WRITER_S)

    async def _stop(self, listening: Collection[asyncio.Task[None]]) -> None:
        for listener in self._listeners:
            listener.stop()
        if listening:
            _, late = await asyncio.wait(listening, timeout=self._finish_s)
            for task in late:
                _LOG.warning("%s does not finish in time; its messages come again", task.get_name())
                task.cancel()

    def web_app(self) -> Starlette:
        """`/healthz`, `/readyz` (503 while a source is not connected), `/metrics`, `/sources`."""
        return Starlette(
            routes=[
                Route("/healthz", self._health),
                Route("/readyz", self._readiness),
                Route("/metrics", self._metrics_page),
                Route("/sources", self._sources),
            ]
        )

    def _listener(
        self, declared: DeclaredSource, notify: Callable[[str], None], pace: Pace
    ) -> Listener:
        source = declared.declaration.make_source(declared.name)
        return Listener(
            source,
            declared.reader,
            store=self._writer.store,
            notify=notify,
            status=SourceStatus(declared.name, declared.integration, source.system, self.metrics),
            pace=replace(pace, batch=declared.declaration.batch),
        )

    async def _health(self, _request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _readiness(self, _request: Request) -> Response:
        not_ready = [each.name for each in self.statuses if each.state != "listening"]
        return JSONResponse({"not_ready": not_ready}, status_code=503 if not_ready else 200)

    async def _metrics_page(self, _request: Request) -> Response:
        return Response(self.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    async def _sources(self, _request: Request) -> Response:
        unusable = [
            {
                "name": each.name,
                "integration": each.integration,
                "state": "not set up",
                "last_error": each.reason,
            }
            for each in self._unusable
        ]
        return JSONResponse([*(each.as_json() for each in self.statuses), *unusable])
