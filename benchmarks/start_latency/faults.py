"""What becomes of a run when a process is killed under it, beside the stock worker.

python -m benchmarks.start_latency.faults [--database URL]
"""

from __future__ import annotations

import argparse
import asyncio
import time

import psutil

from benchmarks.start_latency.stack import FAST, STOCK, Stack, running_stack

_RUN_LASTS_S = 12
_FAULTS = ("kill -9 child", "kill -9 client", "kill -9 parent", "kill -9 worker", "cancel")


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start_latency.faults")
    parser.add_argument("--database", help="of the server; SQLite in a new file if left out")
    options = parser.parse_args()
    async with running_stack(options.database) as stack:
        print(f"{'fault':15} {'worker':6} {'state':10} left  next run   message")
        for fault in _FAULTS:
            for pool in (STOCK, FAST):
                if (fault, pool) != ("kill -9 parent", STOCK):  # it has none
                    await _suffer(stack, fault, pool)


async def _suffer(stack: Stack, fault: str, pool: str) -> None:
    if pool not in stack.processes:
        stack.start(pool)
    run_id = (await stack.create_run(pool, "wait", seconds=_RUN_LASTS_S)).id
    await stack.wait_until([run_id], "Running")
    worker, parent, client, child = _roles(stack.processes[pool])
    if fault == "cancel":
        await stack.cancel(run_id)
    else:
        {"worker": worker, "parent": parent, "client": client, "child": child}[
            fault.removeprefix("kill -9 ")
        ].kill()
    (run,) = await stack.wait_until([run_id])
    left = [p for p in (client, child) if _is_left(p)]
    if fault == "kill -9 worker":
        stack.stop(pool)
        stack.start(pool)
    (after,) = await stack.wait_until([(await stack.create_run(pool)).id])
    message = ((run.state and run.state.message) or "").splitlines()[:1]
    print(
        f"{fault:15} {pool:6} {run.state_name:10} {len(left):4}  {after.state_name:10} "
        f"{''.join(message)[:70]}",
        flush=True,
    )


def _roles(root: psutil.Process) -> list[psutil.Process]:
    """Worker, parent, what the worker has started for the run, and what runs the flow."""
    fast = {process.cmdline()[2].rpartition(".")[2]: process for process in root.children()}
    if "parent" in fast:
        (client,), (child,) = fast["worker"].children(), fast["parent"].children()
        return [fast["worker"], fast["parent"], client, child]
    started = root.children(recursive=True)
    return [root, root, started[0], started[-1]]


def _is_left(process: psutil.Process) -> bool:
    deadline = time.monotonic() + 10
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    asyncio.run(main())
