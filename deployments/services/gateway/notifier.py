"""Tells Prefect that deliveries wait, so that a run starts; never slows or fails an accept.

Events may be lost; the inbox is the record and a sweeper notifies again. So nothing here is
waited for, and while Prefect is down the notifier just tries on, more and more seldom.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import httpx

from blocks.errors import IntegrationError, MisconfiguredError
from deployments.services.gateway.metrics import Metrics
from tasks.core.intake.inbox.notification import waiting_event
from tasks.core.threads import in_thread_without_grace

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 5.0
_API_URL = "PREFECT_API_URL"

Post = Callable[[str], Awaitable[None]]
"""Sends the event for one integration; raises `httpx.HTTPError` if Prefect did not take it."""

CountRuns = Callable[[str], int]
"""How many runs take an integration's deliveries; may block, may raise `IntegrationError`."""


@dataclass(slots=True)
class _Bell:
    task: asyncio.Task[None] | None = None
    is_needed: bool = False


class Notifier:
    """Rings once for many deliveries, and not at all while a run is at work on them.

    Args:
        post: Sends the event.
        count_runs: Tells whether a run is at work.
        metrics: Where notifications are counted.
        sleep: In place of `asyncio.sleep`, for tests.
        pause_s: At least this between two notifications of one integration; doubles as long as no
            run appears, up to `longest_pause_s`.
        longest_pause_s: The longest pause.
    """

    def __init__(
        self,
        post: Post,
        count_runs: CountRuns,
        metrics: Metrics,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        pause_s: float = 0.5,
        longest_pause_s: float = 30.0,
    ) -> None:
        self._post = post
        self._count_runs = count_runs
        self._metrics = metrics
        self._sleep = sleep
        self._pause_s = pause_s
        self._longest_pause_s = longest_pause_s
        self._bells: dict[str, _Bell] = {}
        self._closing = asyncio.Event()

    def notify(self, integration: str) -> None:
        """A delivery was committed; returns at once."""
        bell = self._bells.get(integration)
        if bell is None:
            bell = self._bells[integration] = _Bell()
        bell.is_needed = True
        if bell.task is None:
            bell.task = asyncio.create_task(self._watch(integration, bell))

    async def close(self, *, timeout_s: float = 2.0) -> None:
        """Notify at once of what still waits for it, then stop."""
        self._closing.set()
        tasks = [bell.task for bell in self._bells.values() if bell.task is not None]
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=timeout_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, integration: str, bell: _Bell) -> None:
        pause_s = self._pause_s
        try:
            while bell.is_needed:
                bell.is_needed = False
                if await self._is_attended(integration):
                    pause_s = self._pause_s
                else:
                    bell.is_needed = not await self._rang(integration)
                    pause_s = min(2 * pause_s, self._longest_pause_s)
                if self._closing.is_set():
                    return
                await self._pause(pause_s)
        finally:
            bell.task = None

    async def _pause(self, seconds: float) -> None:
        over = [
            asyncio.ensure_future(self._sleep(seconds)),
            asyncio.ensure_future(self._closing.wait()),
        ]
        try:
            await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in over:
                each.cancel()

    async def _is_attended(self, integration: str) -> bool:
        # A run that finds nothing more first says that it leaves and then looks once more; so
        # whoever asks after the commit and finds a run at work need not notify.
        try:
            return await in_thread_without_grace(self._count_runs, integration) > 0
        except IntegrationError as exc:
            _LOG.warning("cannot see whether a run is at work, so Prefect is notified: %s", exc)
            return False

    async def _rang(self, integration: str) -> bool:
        try:
            await self._post(integration)
        except httpx.HTTPError as exc:
            self._metrics.notifications.labels(integration, "failed").inc()
            _LOG.warning(
                "Prefect did not take the notifier event for %s (%s); deliveries are stored and "
                "it is tried again",
                integration,
                type(exc).__name__,
            )
            return False
        self._metrics.notifications.labels(integration, "sent").inc()
        return True


class PrefectEvents:
    """Sends notifier events to a Prefect server's API.

    Args:
        environment: PREFECT_API_URL, and PREFECT_API_KEY or PREFECT_API_AUTH_STRING if needed.

    Raises:
        MisconfiguredError: The URL is none.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        url = environment.get(_API_URL, "http://127.0.0.1:4200/api")
        if not _is_url(url):
            raise MisconfiguredError(
                f"{_API_URL} is no URL like http://127.0.0.1:4200/api",
                system="notifier",
                operation="start",
            )
        headers = {}
        auth = None
        if key := environment.get("PREFECT_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        elif credentials := environment.get("PREFECT_API_AUTH_STRING"):
            user, _, password = credentials.partition(":")
            auth = httpx.BasicAuth(user, password)
        self._api = url.rstrip("/")
        self._client = httpx.AsyncClient(headers=headers, auth=auth, timeout=_TIMEOUT_S)

    async def post(self, integration: str) -> None:
        """Send one event.

        Raises:
            httpx.HTTPError: Prefect did not take it.
        """
        response = await self._client.post(f"{self._api}/events", json=[waiting_event(integration)])
        response.raise_for_status()

    async def close(self) -> None:
        """Give back the connection."""
        await self._client.aclose()


def _is_url(text: str) -> bool:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host) and (url.port or 80) < 65536
