"""Starts a first run of each scheduled deployment, and waits until each has done its work."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Crashed


@dataclass(frozen=True, slots=True)
class Worked:
    """The outcome of a deployment's first runs."""

    deployment: str
    good: bool
    told: str


async def clear_up_after_last_time() -> None:
    """Delete runs missed while the demo was down; end those that its stop interrupted.

    Nothing runs before the worker starts, so no run in state Running really runs.
    """
    missed = FlowRunFilter(
        state=_in_state(StateType.SCHEDULED),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
    )
    unfinished = FlowRunFilter(
        state=_in_state(StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
    )
    stopped: State[None] = Crashed(message="The demo was stopped in the middle of it.")
    async with get_client() as client:
        while runs := await client.read_flow_runs(flow_run_filter=missed):
            for run in runs:
                await client.delete_flow_run(run.id)
        for run in await client.read_flow_runs(flow_run_filter=unfinished):
            await client.set_flow_run_state(run.id, stopped, force=True)


async def start_first_runs(tag: str) -> list[str]:
    """Run every deployment with this tag once; return their names."""
    async with get_client() as client:
        deployments = [d for d in await client.read_deployments() if tag in d.tags]
        for deployment in deployments:
            await client.create_flow_run_from_deployment(deployment.id)
    return sorted(d.name for d in deployments)


async def wait_for_work(tags: Collection[str], *, timeout_s: float) -> list[Worked]:
    """Wait until every deployment with one of the tags has a run that completed or failed.

    Returns:
        One outcome per deployment, sorted by name.
    """
    async with get_client() as client:
        deployments = await client.read_deployments()
        waiting = {d.id: d.name for d in deployments if not set(tags).isdisjoint(d.tags)}
        worked: list[Worked] = []
        for _ in range(max(1, int(timeout_s * 2))):
            for deployment_id in list(waiting):
                runs = await client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(
                        deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id])
                    )
                )
                outcome = _judge(waiting[deployment_id], runs)
                if outcome is not None:
                    worked.append(outcome)
                    del waiting[deployment_id]
            if not waiting:
                break
            await asyncio.sleep(0.5)
    worked += [Worked(name, good=False, told="no run has ended") for name in waiting.values()]
    return sorted(worked, key=lambda w: w.deployment)


def _in_state(*types: StateType) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types)))


def _judge(name: str, runs: Iterable[FlowRun]) -> Worked | None:
    bad = None
    for run in runs:
        if run.state is None or not run.state.is_final():
            continue
        told = f"{run.name}: {run.state.name}, {run.state.message or ''}".rstrip(", ")
        if run.state.is_completed():
            return Worked(name, good=True, told=told)
        if not run.state.is_cancelled():  # two polls at once: the later one is cancelled
            bad = Worked(name, good=False, told=told)
    return bad
