"""Starts a run at once for integrations whose callers wait, in place of an event that starts one.

The way by event and automation takes a third of a second longer. It stays the way whenever a run
cannot be started like this, and the sweeper's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import httpx

from deployments.services.gateway.notifier import PrefectEvents
from tasks.core.registry.declarations import IntegrationDeclaration

_LOG = logging.getLogger(__name__)
_KNOWN_FOR_S = 60.0
_STARTS_WITHIN_S = 120.0  # a run that has waited for longer may be stuck: one more is started
_NOT_BEGUN = ("SCHEDULED", "PENDING")


class PrefectRuns(PrefectEvents):
    """Starts runs of deployments, and sends events for integrations that have none to start.

    Args:
        environment: As for `PrefectEvents`.
        deployments: Integration to the name of the deployment that answers its requests.
    """

    def __init__(self, environment: Mapping[str, str], deployments: Mapping[str, str]) -> None:
        super().__init__(environment)
        self._deployments = deployments
        self._known: dict[str, tuple[str | None, float]] = {}
        self._started_at: dict[str, float] = {}

    async def post(self, integration: str) -> None:
        """Start a run for one integration, or send the event that starts one.

        Raises:
            httpx.HTTPError: Prefect took neither.
        """
        name = self._deployments.get(integration)
        if name is None or not await self._started(name):
            await super().post(integration)

    async def _started(self, name: str) -> bool:
        try:
            id_ = await self._id(name)
            if id_ is None:
                return False
            if await self._is_under_way(id_):
                return True
            url = f"{self._api}/deployments/{id_}/create_flow_run"
            (await self._client.post(url, json={})).raise_for_status()
            self._started_at[id_] = time.monotonic()
        except (httpx.HTTPStatusError, KeyError, ValueError) as exc:
            self._known.pop(name, None)
            _LOG.warning("no run of %s could be started (%s): an event is sent", name, exc)
            return False
        return True

    async def _is_under_way(self, id_: str) -> bool:
        """Whether a run was started already that has not begun: workers may be behind."""
        since = time.monotonic() - self._started_at.get(id_, float("-inf"))
        if since > _STARTS_WITHIN_S:
            return False
        now = datetime.now(UTC)
        waiting = {
            "state": {"type": {"any_": _NOT_BEGUN}},
            "expected_start_time": {
                "after_": (now - timedelta(seconds=_STARTS_WITHIN_S)).isoformat(),
                "before_": now.isoformat(),
            },
        }
        response = await self._client.post(
            f"{self._api}/flow_runs/count",
            json={"deployments": {"id": {"any_": [id_]}}, "flow_runs": waiting},
        )
        return bool(response.raise_for_status().json())

    async def _id(self, name: str) -> str | None:
        """The deployment's id; None if there is none of that name, or several, or it is paused."""
        id_, since = self._known.get(name, (None, float("-inf")))
        if time.monotonic() - since < _KNOWN_FOR_S:
            return id_
        response = await self._client.post(
            f"{self._api}/deployments/filter", json={"deployments": {"name": {"any_": [name]}}}
        )
        found = response.raise_for_status().json()
        id_ = found[0]["id"] if len(found) == 1 and not found[0].get("paused") else None
        self._known[name] = (id_, time.monotonic())
        return id_


def replying_deployments(declared: Iterable[IntegrationDeclaration]) -> dict[str, str]:
    """Where requests wait to the deployment that answers them, of endpoints that say which."""
    return {
        endpoint.queue or each.integration: endpoint.feeds
        for each in declared
        for endpoint in each.endpoints.values()
        if endpoint.request_reply is not None and endpoint.feeds
    }
