"""One Prefect server with two work pools: a stock worker on one, the launcher on the other."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling
from prefect.workers.process import ProcessWorker

from benchmarks.harness.processes import PROJECT, free_port

STOCK, FAST = "stock", "fast"
_FLOWS = "benchmarks.start_latency.measured_flows"
_HEAVY = "benchmarks.start_latency.measured_heavy_flows"
_LAUNCHER = ["-m", "deployments.launcher", f"--pool={FAST}"]
_COMMANDS = {
    STOCK: ["-m", "prefect", "worker", "start", f"--pool={STOCK}", "--type=process"],
    FAST: [*_LAUNCHER, f"--prefect-file={Path(__file__).with_name('prefect.yaml')}"],
}


class Stack:
    """The server's client, the processes, and the deployments by (pool, flow)."""

    def __init__(self, client: PrefectClient, environment: dict[str, str], folder: Path) -> None:
        self.client = client
        self.environment = environment
        self.folder = folder
        self.processes: dict[str, psutil.Popen] = {}
        self.deployments: dict[tuple[str, str], UUID] = {}

    async def deploy(self) -> None:
        """Make both pools and deploy each flow to each."""
        template = ProcessWorker.get_default_base_job_template()
        for pool in (STOCK, FAST):
            create = WorkPoolCreate(name=pool, type="process", base_job_template=template)
            await self.client.create_work_pool(create)
            for name, module, function in (
                ("nothing", _FLOWS, "nothing"),
                ("wait", _FLOWS, "wait"),
                ("heavy-wait", _HEAVY, "wait"),
            ):
                flow_id = await self.client.create_flow_from_name(name)
                self.deployments[pool, name] = await self.client.create_deployment(
                    flow_id,
                    f"{name}-{pool}",
                    entrypoint=f"{module}.{function}",
                    work_pool_name=pool,
                )

    def start(self, pool: str, **environment: str) -> psutil.Popen:
        """Start the pool's worker, for the fast one with its launcher."""
        process = self.spawn(pool, _COMMANDS[pool], **environment)
        self.wait_for_output(pool, "started!")
        if pool == FAST:
            self.wait_for_output(pool, "ready:")
        return process

    def spawn(self, name: str, command: list[str], **environment: str) -> psutil.Popen:
        """Start a Python program; its output goes to a file."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = psutil.Popen(
                [sys.executable, *command],
                env={**self.environment, **environment},
                cwd=PROJECT,
                stdout=log,
                stderr=log,
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def wait_for_output(self, name: str, text: str) -> None:
        """Wait until the program has said the text."""
        while text not in (self.folder / f"{name}.log").read_text():
            if self.processes[name].poll() is not None:
                raise SystemExit((self.folder / f"{name}.log").read_text())
            time.sleep(0.1)

    def stop(self, name: str) -> None:
        """End a program with all that it has started."""
        process = self.processes.pop(name)
        tree = [process, *process.children(recursive=True)] if process.is_running() else []
        if process.poll() is None:
            process.terminate()
        psutil.wait_procs(tree, timeout=30)
        for left in tree:
            if left.is_running():
                left.kill()
        process.wait()

    def processor_s(self, *names: str) -> float:
        """Seconds that the programs and all that they have started have been computing."""
        roots = [self.processes[name] for name in names]
        total_s = 0.0
        for process in [p for root in roots for p in (root, *root.children(recursive=True))]:
            with suppress(psutil.NoSuchProcess):
                total_s += sum(process.cpu_times()[:4])
        return total_s

    async def create_run(self, pool: str, flow: str = "nothing", **parameters: Any) -> FlowRun:
        """A new run, as any API client makes one."""
        return await self.client.create_flow_run_from_deployment(
            self.deployments[pool, flow], parameters=parameters
        )

    async def cancel(self, run_id: UUID) -> None:
        """Press the button of the UI."""
        await self.client.set_flow_run_state(run_id, Cancelling())

    async def wait_until(self, runs: Iterable[UUID], *states: str) -> list[FlowRun]:
        """The runs, once each is in one of the states; any final state by default."""
        found = []
        for run_id in runs:
            while True:
                run = await self.client.read_flow_run(run_id)
                assert run.state is not None
                if run.state.name in states or run.state.is_final():
                    found.append(run)
                    break
                await asyncio.sleep(0.3)
        return found


@asynccontextmanager
async def running_stack(database_url: str | None) -> AsyncIterator[Stack]:
    """A server on SQLite, or on the database of the URL, with both pools and no worker yet."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up after `timeout`
    folder = Path(tempfile.mkdtemp(prefix="start-latency-"))
    api_url = f"http://127.0.0.1:{free_port()}/api"
    environment = {n: v for n, v in os.environ.items() if not n.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": api_url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
        "DO_NOT_TRACK": "1",
        **({"PREFECT_API_DATABASE_CONNECTION_URL": database_url} if database_url else {}),
    }
    port = api_url.rpartition(":")[2].removesuffix("/api")
    with temporary_settings({PREFECT_API_URL: api_url}), _cleaned(folder):
        async with PrefectClient(api_url) as client:
            stack = Stack(client, environment, folder)
            # for both workers alike: with Prefect's own command SQLite stands still now and then
            stack.spawn("server", ["-m", "deployments.prefect_on_sqlite", f"--port={port}"])
            try:
                await _wait_for_server(api_url)
                await stack.deploy()
                yield stack
            finally:
                for name in reversed(list(stack.processes)):
                    stack.stop(name)


async def _wait_for_server(api_url: str) -> None:
    async with httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(f"{api_url}/health")).is_success:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.2)


@contextmanager
def _cleaned(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(folder)
