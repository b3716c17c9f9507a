"""Many runs in a row: what do parent and worker hold afterwards that they did not before?

python -m benchmarks.start_latency.soak [--forks 500] [--runs 100]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.start_latency.stack import FAST, running_stack
from deployments.services.launcher.protocol import send_request


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start_latency.soak")
    parser.add_argument("--forks", type=int, default=500, help="of a job that does nothing")
    parser.add_argument("--runs", type=int, default=100, help="of a flow, on a server")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, _parent(Path(folder)) as parent:
        path = f"{folder}/socket"
        _fork(path, 20)
        with _compared("parent", options.forks, [parent]):
            _fork(path, options.forks)
    async with running_stack(None) as stack:
        stack.start(FAST)
        await stack.wait_until([(await stack.create_run(FAST)).id for _ in range(5)])
        await asyncio.sleep(10)
        parts = {p.cmdline()[2].rpartition(".")[2]: p for p in stack.processes[FAST].children()}
        with _compared("parent and worker", options.runs, parts.values()):
            for _ in range(options.runs):
                await stack.wait_until([(await stack.create_run(FAST)).id])
            await asyncio.sleep(10)


@contextmanager
def _parent(folder: Path) -> Iterator[psutil.Process]:
    (folder / "no_job.py").touch()
    os.environ["PYTHONPATH"] = str(folder)  # of the requests as well: both must agree
    command = ["-m", "deployments.services.launcher.parent", f"--socket={folder}/socket"]
    preload = ["--preload=prefect.flow_engine", "--preload=pandas", "--engine=no_job"]
    with (folder / "said").open("w") as said:
        parent = psutil.Popen(
            [sys.executable, *command, *preload], stdin=-1, stderr=said, cwd=folder
        )
    try:
        while "ready" not in (folder / "said").read_text():
            time.sleep(0.1)
        yield parent
    finally:
        parent.kill()
        parent.communicate()


def _fork(path: str, count: int) -> None:
    for _ in range(count):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            lines = connection.makefile()
            assert lines.readline().startswith("hello")
            send_request(connection)
            assert list(lines) == ["started\n", "exit 0\n", "exit 0\n"]


@contextmanager
def _compared(what: str, count: int, processes: Iterable[psutil.Process]) -> Iterator[None]:
    processes = list(processes)
    before = [_held(process) for process in processes]
    began = time.monotonic()
    yield
    took_s = time.monotonic() - began
    print(f"{what}, {count} runs in {took_s:.0f} s ({1000 * took_s / count:.0f} ms each)")
    for process, then in zip(processes, before, strict=True):
        now = _held(process)
        print("  " + ", ".join(f"{name} {then[name]} → {now[name]}" for name in now), flush=True)


def _held(process: psutil.Process) -> dict[str, int]:
    return {
        "descriptors": process.num_fds(),
        "children": len(process.children()),
        "threads": process.num_threads(),
        "own memory kB": process.memory_full_info().uss // 1000,
        "resident kB": process.memory_info().rss // 1000,
    }


if __name__ == "__main__":
    asyncio.run(main())
