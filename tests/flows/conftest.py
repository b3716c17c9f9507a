"""Runs of flows that are made, watched and retried on a Prefect server, and what they work on."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import Artifact, FlowRun, State, TaskRun
from prefect.flow_engine import run_flow
from prefect.states import AwaitingRetry, Pending
from sqlalchemy import Engine

from sandbox.systems.own_app.serving import RunningOwnApp
from sandbox.systems.scripted_api import ScriptedApi, ScriptedReply
from tasks.core.intake.inbox.new_delivery import NewDelivery
from tasks.core.intake.inbox.operations import DeliveryFilter, InboxOperations
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.state.database import open_database


class Runs:
    """Runs flows on the server as a worker would, without a worker."""

    def __init__(self) -> None:
        self.last: UUID | None = None

    def start(self, flow: Flow[..., Any], **parameters: Any) -> State[Any]:
        """Make a flow run and execute it; returns its final state."""
        return asyncio.run(self._start(flow, parameters))

    def retry(self, flow: Flow[..., Any]) -> State[Any]:
        """What pressing Retry in the UI does: the same run again."""
        return asyncio.run(self._retry(flow))

    def tasks(self) -> dict[str, str]:
        """Names of the last run's task runs, and the names of their states."""
        return {run.name: run.state_name or "" for run in asyncio.run(self._tasks())}

    def histories(self) -> dict[str, list[str]]:
        """Names of the last run's task runs, and of all states that each went through."""
        return asyncio.run(self._histories())

    def artifacts(self) -> list[Artifact]:
        """The last run's artifacts, oldest first."""
        return asyncio.run(self._artifacts())

    async def _start(self, flow: Flow[..., Any], parameters: dict[str, Any]) -> State[Any]:
        async with get_client() as client:
            run = await client.create_flow_run(flow, parameters=parameters, state=Pending())
            self.last = run.id
            return await self._execute(flow, run)

    async def _retry(self, flow: Flow[..., Any]) -> State[Any]:
        assert self.last is not None
        async with get_client() as client:
            await client.set_flow_run_state(self.last, AwaitingRetry(), force=True)
            await client.set_flow_run_state(self.last, Pending(), force=True)
            return await self._execute(flow, await client.read_flow_run(self.last))

    async def _execute(self, flow: Flow[..., Any], run: FlowRun) -> State[Any]:
        state: State[Any] = await run_flow(flow, flow_run=run, return_type="state")  # type: ignore[assignment]
        return state

    async def _tasks(self) -> list[TaskRun]:
        assert self.last is not None
        async with get_client() as client:
            expected = None
            for _ in range(100):  # task runs are recorded from events, a moment later
                found = await client.read_task_runs(
                    flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[self.last]))
                )
                if (
                    found
                    and found == expected
                    and all(r.state.is_final() for r in found if r.state)
                ):
                    return found
                expected = found
                await asyncio.sleep(0.1)
            return found

    async def _histories(self) -> dict[str, list[str]]:
        runs = await self._tasks()
        async with get_client() as client:
            states = {run.name: await client.read_task_run_states(run.id) for run in runs}
        return {
            name: [state.name or "" for state in sorted(each, key=lambda state: state.timestamp)]
            for name, each in states.items()
        }

    async def _artifacts(self) -> list[Artifact]:
        assert self.last is not None
        async with get_client() as client:
            found = await client.read_artifacts(
                artifact_filter=ArtifactFilter(
                    flow_run_id=ArtifactFilterFlowRunId(any_=[self.last])
                )
            )
            return sorted(found, key=lambda artifact: artifact.created)


class FilledInbox:
    """An inbox in a database of its own, and what became of its deliveries."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.operations = InboxOperations(engine)
        self._count = 0

    def deliver(
        self, integration: str, payload: Any, *, event: str = "", ordering_key: str | None = None
    ) -> str:
        """Store a delivery as the gateway does; returns its id."""
        self._count += 1
        delivery = NewDelivery(
            integration=integration,
            endpoint=f"/webhooks/{integration}",
            event=event,
            dedup_key=str(self._count),
            ordering_key=ordering_key,
            headers=b"[]",
            body=json.dumps(payload).encode(),
            payload=None,
            content_type="application/json",
            received_at=datetime.now(UTC),
        )
        return asyncio.run(self._store(delivery))

    def statuses(self) -> dict[str, str]:
        """Delivery id to status."""
        return {each.id: each.status for each in self.operations.select(DeliveryFilter())}

    def reason(self, id_: str) -> str | None:
        """Why one delivery has its status."""
        return self.operations.select(DeliveryFilter(ids=(id_,)))[0].reason

    async def _store(self, delivery: NewDelivery) -> str:
        writer = InboxWriter(self.engine)
        await writer.start()
        [stored] = await writer.store([delivery])
        await writer.close()
        return stored.id


@pytest.fixture
def inbox(
    migrated_sqlite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FilledInbox]:
    """An empty inbox that the flows find by their environment."""
    path = shutil.copy(migrated_sqlite, tmp_path / "inbox.db")
    monkeypatch.setenv("INTEGRATIONS_DATABASE_URL", f"sqlite:///{path}")
    engine = open_database()
    yield FilledInbox(engine)
    engine.dispose()


class OwnAppEvents:
    """What own app sends to one subscriber, put into the inbox when the test says so."""

    def __init__(self, own_app: RunningOwnApp, subscriber: ScriptedApi, inbox: FilledInbox) -> None:
        self._own_app = own_app
        self._subscriber = subscriber
        self._inbox = inbox
        self._integration = self._key = ""
        self._taken = 0

    def subscribe(self, integration: str, resource: str, *, key: str) -> None:
        """Have own app tell all that happens to records, e.g. "order", ordered by their key."""
        self._integration, self._key = integration, key
        self._subscriber.answer(*[ScriptedReply(status=204, body=b"")] * 200)
        events = [f"{resource}.{what}" for what in ("created", "updated", "deleted")]
        self._own_app.http.post(
            "/api/v1/webhooks", json={"url": self._subscriber.url, "events": events}
        ).raise_for_status()

    def relay(self, count: int) -> list[str]:
        """Wait for so many more events, and store each as a delivery; returns their ids."""
        deadline = time.monotonic() + 10
        while len(self._subscriber.requests) < self._taken + count:
            assert time.monotonic() < deadline, "own app did not send"
            time.sleep(0.01)
        new = self._subscriber.requests[self._taken : self._taken + count]
        self._taken += count
        return [self._store(json.loads(request.body)) for request in new]

    def _store(self, event: Any) -> str:
        return self._inbox.deliver(
            self._integration, event, event=event["type"], ordering_key=event["data"][self._key]
        )


@pytest.fixture
def own_app_events(
    own_app: RunningOwnApp, scripted_api: ScriptedApi, inbox: FilledInbox
) -> OwnAppEvents:
    """Own app's events on their way to an integration's inbox."""
    return OwnAppEvents(own_app, scripted_api, inbox)


@pytest.fixture
def runs(prefect_server: None) -> Runs:
    """Runs flows on a real Prefect server."""
    return Runs()
