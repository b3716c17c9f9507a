"""Sends events to subscribers, signed, again and again until they are acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime

import httpx

from sandbox.systems.own_app.outbox import Outgoing
from sandbox.systems.own_app.store import Store
from sandbox.systems.standard_webhooks import signed_headers

_AT_ONCE = 32
_TIMEOUT_S = 10
_LOOK_AGAIN_S = 0.2


class Courier:
    """Works in the event loop in which it is started; a stop drops no event."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wake = asyncio.Event()
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._ended: list[tuple[Outgoing, int | None]] = []
        self._working: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin with what waits from before."""
        self._store.on_commit = self._wake.set
        self._wake.set()
        self._working = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Leave the rest for the next start."""
        tasks = [*self._under_way.values(), *([self._working] if self._working else [])]
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def ping(self, event: Outgoing) -> int | None:
        """Try a subscription once; the status it was answered, or None without an answer."""
        async with _client() as http:
            return await _send(http, event)

    async def _work(self) -> None:
        async with _client() as http:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_AGAIN_S if self._store_waits() else None):
                        await self._wake.wait()
                self._wake.clear()
                self._settle()
                self._send_due(http)

    def _store_waits(self) -> bool:
        return bool(self._under_way) or self._store.outbox.waiting() > 0

    def _settle(self) -> None:
        if self._ended:
            with self._store.transaction():
                self._store.outbox.settle(self._ended, now_s=time.time())
            self._wake.clear()
            for event, _ in self._ended:
                del self._under_way[event.seq]
            self._ended.clear()

    def _send_due(self, http: httpx.AsyncClient) -> None:
        due = self._store.outbox.due(now_s=time.time(), limit=_AT_ONCE + len(self._under_way))
        for event in due:
            if event.seq not in self._under_way and len(self._under_way) < _AT_ONCE:
                self._under_way[event.seq] = asyncio.create_task(self._attempt(http, event))

    async def _attempt(self, http: httpx.AsyncClient, event: Outgoing) -> None:
        status = await _send(http, event)
        self._ended.append((event, status))
        self._wake.set()


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(
        timeout=_TIMEOUT_S, limits=httpx.Limits(max_keepalive_connections=_AT_ONCE)
    )


async def _send(http: httpx.AsyncClient, event: Outgoing) -> int | None:
    headers = signed_headers(event.secret, event.event_id, event.body, now=datetime.now(UTC))
    headers |= {"Content-Type": "application/json", "User-Agent": "own-app"}
    try:
        response = await http.post(event.url, content=event.body, headers=headers)
    except httpx.HTTPError:
        return None
    return response.status_code
