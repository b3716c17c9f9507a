"""Takes up secrets that activation has stored, without a restart and off the accept path.

They are looked for every few seconds, and at once when a request does not prove itself: a third
party that was just told a secret sends its first test event only once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from blocks.errors import IntegrationError
from deployments.services.gateway.endpoints import Endpoint, UnusableEndpoint, make_endpoints
from tasks.core.registry.declarations import IntegrationDeclaration
from tasks.core.registry.secrets.store import StoredSecrets

_LOG = logging.getLogger(__name__)

Made = list[Endpoint | UnusableEndpoint]


class StoredSecretsWatch:
    """Makes the declared endpoints anew when a stored secret of theirs has changed; blocks.

    Args:
        declared: All integrations.
        environment: As for `make_endpoints`.
        secrets: What is stored.
    """

    def __init__(
        self,
        declared: Sequence[IntegrationDeclaration],
        environment: Mapping[str, str],
        secrets: StoredSecrets,
    ) -> None:
        self._declared = declared
        self._environment = environment
        self._secrets = secrets
        self._seen: dict[str, int] | None = None
        self._names = {
            name
            for each in declared
            for endpoint in each.endpoints.values()
            for name in endpoint.secrets.stored
        }

    def changed(self) -> Made | None:
        """The endpoints if a secret has changed since the last time, else None.

        Raises:
            IntegrationError: The database does not answer, or a declaration is wrong.
        """
        if self._seen is not None and not self._names:
            return None
        versions = self._secrets.versions() if self._names else {}
        seen = {name: version for name, version in versions.items() if name in self._names}
        if seen == self._seen:
            return None
        made = make_endpoints(self._declared, self._environment, stored=self._secrets.accepted)
        self._seen = seen
        return made


class Renewal:
    """Looks for changed secrets, never more often than `pause_s`.

    Args:
        changed: As `StoredSecretsWatch.changed`.
        use: Takes the new endpoints.
        every_s: How often it looks by itself.
        pause_s: At least this between two looks.
        max_waiting: So many requests may wait for a look; more are not worth it.
    """

    def __init__(
        self,
        changed: Callable[[], Made | None],
        use: Callable[[Made], None],
        *,
        every_s: float = 3.0,
        pause_s: float = 0.25,
        max_waiting: int = 32,
    ) -> None:
        self._changed = changed
        self._use = use
        self._every_s = every_s
        self._pause_s = pause_s
        self._max_waiting = max_waiting
        self._waiting = 0
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look now and then from now on."""
        self._task = asyncio.create_task(self._look_now_and_then())

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Look once, after the request that asks for it came in; soon, or not at all."""
        if self._waiting >= self._max_waiting:
            return
        asked_at = time.monotonic()
        self._waiting += 1
        try:
            async with self._looking:
                if self._looked_at > asked_at:
                    return  # somebody has looked for all who were waiting
                await asyncio.sleep(max(0.0, self._looked_at + self._pause_s - asked_at))
                await self._look()
        finally:
            self._waiting -= 1

    async def _look_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            async with self._looking:
                await self._look()

    async def _look(self) -> None:
        self._looked_at = time.monotonic()
        try:
            made = await asyncio.to_thread(self._changed)
        except IntegrationError as exc:
            _LOG.warning("cannot look for changed secrets, so those known stay: %s", exc)
            return
        except Exception as exc:  # noqa: BLE001 - the database's driver; the next look may work
            _LOG.warning("cannot look for changed secrets (%s)", type(exc).__name__)
            return
        if made is not None:
            self._use(made)
            _LOG.info("took up changed secrets")
