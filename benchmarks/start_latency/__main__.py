"""Starts of flow runs, by the launcher and by the stock worker, in one run on one server.

    python -m benchmarks.start_latency [--runs 20] [--burst 50] [--events 20] [--database URL]

Both workers are up all the time. The runs of the two alternate, so whatever else the machine
does hits both. The stock worker runs at its defaults. A burst is created by one client, one run
after the other, and counted from the first created to the last ended; its processor time is that
of server, worker and runs together, which other work on the machine changes least.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
from datetime import UTC, datetime
from uuid import UUID

import psutil
from prefect.automations import Automation, RunDeployment
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterExpectedStartTime
from prefect.client.schemas.objects import FlowRun
from prefect.events import EventTrigger, emit_event

from benchmarks.harness.figures import show_latencies
from benchmarks.start_latency.stack import FAST, STOCK, Stack, running_stack

_PROCESSES = 10
_WORKER = "deployments.services.launcher.worker"
_PARENT = "deployments.services.launcher.parent"


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start_latency")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--burst", type=int, default=50)
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--database", help="of the server; SQLite in a new file if left out")
    options = parser.parse_args()
    async with running_stack(options.database) as stack:
        for pool in (STOCK, FAST):
            stack.start(pool)
        await _both(stack, 1)  # the first run of each pool makes files and caches
        if options.runs:
            show("idle, created → Running", await _both(stack, options.runs))
        if options.events:
            show("event emitted → Running", await _events(stack, options.events))
        if options.memory:
            await _memory(stack, "wait")
            await _memory(stack, "heavy-wait")
        if options.burst:
            await _burst(stack, options.burst)


def show(what: str, latencies_s: dict[str, list[float]]) -> None:
    """One line a pool, and how many times faster the launcher is."""
    print(f"\n{what}")
    for pool, values in latencies_s.items():
        show_latencies(f"  {pool}", values)
    ratio = statistics.median(latencies_s[STOCK]) / statistics.median(latencies_s[FAST])
    print(f"  ratio of medians: {ratio:.1f}", flush=True)


async def _both(stack: Stack, count: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {STOCK: [], FAST: []}
    for _ in range(count):
        for pool, latencies_s in found.items():
            await asyncio.sleep(random.uniform(0, 2))  # no fixed phase to the worker's polls
            run = await stack.create_run(pool)
            latencies_s += [_latency_s(run) for run in await stack.wait_until([run.id])]
    return found


def _latency_s(run: FlowRun, since: datetime | None = None) -> float:
    assert run.start_time, f"{run.name} is {run.state}"
    began_at = since or run.created
    assert began_at
    return (run.start_time - began_at).total_seconds()


async def _burst(stack: Stack, count: int) -> None:
    print(f"\nburst of {count} runs")
    rates, costs_s = {}, {}
    for pool in (STOCK, FAST):
        before_s = stack.processor_s("server", pool)
        created = [await stack.create_run(pool) for _ in range(count)]
        runs = await stack.wait_until([run.id for run in created])
        ended_at = max(run.end_time for run in runs if run.end_time)
        rates[pool] = count / (ended_at - created[0].created).total_seconds()
        states = statistics.multimode(run.state_name for run in runs)
        good = sum(run.state_name == "Completed" for run in runs)
        await asyncio.sleep(2)  # the last processes end after their runs
        costs_s[pool] = (stack.processor_s("server", pool) - before_s) / count
        print(
            f"  {pool:6} {rates[pool]:.2f} runs/s, {good} completed {states}, "
            f"{costs_s[pool]:.2f} s of processor a run",
            flush=True,
        )
    print(f"  ratio: {rates[FAST] / rates[STOCK]:.1f}")
    print(f"  ratio of processor time: {costs_s[STOCK] / costs_s[FAST]:.1f}", flush=True)


async def _events(stack: Stack, count: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {STOCK: [], FAST: []}
    for pool in found:
        trigger = EventTrigger(expect={f"benchmark.{pool}"}, posture="Reactive", threshold=1)
        action = RunDeployment(deployment_id=stack.deployments[pool, "nothing"])
        await Automation(name=pool, trigger=trigger, actions=[action]).acreate()
    await asyncio.sleep(5)  # the server loads new automations every few seconds
    for _ in range(count):
        for pool, latencies_s in found.items():
            emitted_at = datetime.now(UTC)
            emit_event(f"benchmark.{pool}", resource={"prefect.resource.id": "benchmark"})
            new = await _runs_since(stack, emitted_at)
            runs = await stack.wait_until(new)
            latencies_s += [_latency_s(run, emitted_at) for run in runs]
    return found


async def _runs_since(stack: Stack, instant: datetime) -> list[UUID]:
    expected = FlowRunFilter(expected_start_time=FlowRunFilterExpectedStartTime(after_=instant))
    while True:
        if runs := await stack.client.read_flow_runs(flow_run_filter=expected):
            return [run.id for run in runs]
        await asyncio.sleep(0.2)


async def _memory(stack: Stack, flow: str) -> None:
    print(f"\nproportional memory of {_PROCESSES} idle runs ({flow}), without the worker")
    sizes_mb: dict[str, float] = {}
    for pool in (STOCK, FAST):
        created = [await stack.create_run(pool, flow) for _ in range(_PROCESSES)]
        await stack.wait_until([run.id for run in created], "Running")
        await asyncio.sleep(5)
        root = stack.processes[pool]
        below = [p for p in root.children(recursive=True) if _WORKER not in p.cmdline()]
        for process in below + [root] * (pool == FAST):
            part = process.cmdline()[2]
            sizes_mb.setdefault(part, 0)
            sizes_mb[part] += process.memory_full_info().pss / 1e6
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):  # ended with one killed before
                if pool == STOCK or process.ppid() != root.pid:
                    process.kill()
        await stack.wait_until([run.id for run in created])
    fast = {part: sizes_mb.pop(part) for part in list(sizes_mb) if "launcher" in part}
    stock_mb = sum(sizes_mb.values())
    print(f"  stock  {stock_mb:.0f} MB")
    for part, size_mb in fast.items():
        print(f"  {part:29} {size_mb:4.0f} MB")
    print(f"  ratio, parent and children: {fast[_PARENT] / stock_mb:.2f}")
    print(f"  ratio, everything: {sum(fast.values()) / stock_mb:.2f}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
