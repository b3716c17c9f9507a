"""One Prefect server for all flow tests, and runs that are made, watched and retried on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
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
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A real server on SQLite in a directory of its own."""
    with prefect_test_harness(server_startup_timeout=60):
        yield


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

    async def _artifacts(self) -> list[Artifact]:
        assert self.last is not None
        async with get_client() as client:
            found = await client.read_artifacts(
                artifact_filter=ArtifactFilter(
                    flow_run_id=ArtifactFilterFlowRunId(any_=[self.last])
                )
            )
            return sorted(found, key=lambda artifact: artifact.created)


@pytest.fixture
def runs(prefect_server: None) -> Runs:
    """Runs flows on a real Prefect server."""
    return Runs()
