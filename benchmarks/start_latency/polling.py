"""Polls against the notifier: how long a run waits, and what the server pays while idle.

python -m benchmarks.start_latency.polling [--runs 15] [--idle-s 30]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
from pathlib import Path

import psutil

from benchmarks.start_latency.stack import FAST, Stack, running_stack
from deployments.services.launcher.protocol import SOCKET_VARIABLE

_POLLS_S = (10.0, 5.0, 2.0, 1.0, 0.5)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start_latency.polling")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--idle-s", type=float, default=30)
    options = parser.parse_args()
    async with running_stack(None) as stack:
        await _report(stack, "no worker", 0, options.idle_s)
        stack.start(FAST)
        await _report(stack, "notifier", options.runs, options.idle_s)
        stack.stop(FAST)
        path = stack.folder / "socket"
        stack.spawn("parent", ["-m", "deployments.services.launcher.parent", f"--socket={path}"])
        stack.wait_for_output("parent", "ready")
        for seconds in _POLLS_S:
            stack.spawn(
                "polls",
                ["-m", "prefect", "worker", "start", f"--pool={FAST}"],
                **{
                    SOCKET_VARIABLE: str(path),
                    "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
                    "PREFECT_WORKER_QUERY_SECONDS": str(seconds),
                },
            )
            stack.wait_for_output("polls", "started!")
            await _report(stack, f"poll every {seconds} s", options.runs, options.idle_s)
            stack.stop("polls")


async def _report(stack: Stack, what: str, count: int, idle_s: float) -> None:
    latencies_s = []
    for _ in range(count):
        await asyncio.sleep(random.uniform(0, 2))
        (run,) = await stack.wait_until([(await stack.create_run(FAST)).id])
        assert run.start_time
        assert run.created
        latencies_s.append((run.start_time - run.created).total_seconds())
    await asyncio.sleep(5)
    server = psutil.Process(stack.processes["server"].pid)
    before = server.cpu_times()
    await asyncio.sleep(idle_s)
    after = server.cpu_times()
    busy_s = after.user + after.system - before.user - before.system
    median = f"{statistics.median(latencies_s):5.2f}" if latencies_s else "    –"
    slowest = f"{max(latencies_s):5.2f}" if latencies_s else "    –"
    print(
        f"{what:18} created → Running median {median} max {slowest} s; idle server "
        f"{1000 * busy_s / idle_s:4.0f} ms of CPU a second",
        flush=True,
    )


if __name__ == "__main__":
    asyncio.run(main())
