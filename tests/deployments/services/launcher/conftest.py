"""A launcher without Prefect, whose flow runs are any Python code, and one with a server."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deployments.services.launcher.protocol import SOCKET_VARIABLE

Job = subprocess.Popen[str]


class Bench:
    """A project folder, a parent that serves it, and clients that run jobs there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "socket"
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[4])]),
            "PYTHONDONTWRITEBYTECODE": "1",
            SOCKET_VARIABLE: str(self.socket),
        }
        self.processes: list[subprocess.Popen[str]] = []
        self.write("job_engine.py", "import os\nexec(os.environ['JOB'])\n")

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def start_parent(self, *preload: str) -> Job:
        parent = "deployments.services.launcher.parent"
        command = [sys.executable, "-m", parent, f"--socket={self.socket}"]
        options = ["--engine=job_engine", *(f"--preload={name}" for name in preload)]
        with (self.folder / "said").open("w") as output:
            parent = self.start([*command, *options], stderr=output)
        self.wait_until_said("ready")
        return parent

    def said(self) -> str:
        """What the parent has said."""
        return (self.folder / "said").read_text()

    def wait_until_said(self, text: str, times: int = 1) -> None:
        while self.said().count(text) < times:
            assert self.processes[0].poll() is None, self.said()
            time.sleep(0.01)

    def start_job(self, code: str, **options: Any) -> Job:
        environment = {**self.environment, "JOB": code, **options.pop("env", {})}
        return self.start(
            [options.pop("python", sys.executable), "-m", "deployments.services.launcher.client"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=options.pop("stderr", subprocess.PIPE),
            **options,
        )

    def run_job(self, code: str, **options: Any) -> str:
        """What a job that must succeed prints."""
        job = self.start_job(code, **options)
        out, err = job.communicate(timeout=60)
        assert job.returncode == 0, err + self.said()
        return out

    def start(self, command: list[str], **options: Any) -> Job:
        options = {"env": self.environment, "cwd": self.folder, **options}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, **options)
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
            process.wait()


@pytest.fixture
def bench() -> Iterator[Bench]:
    # Not tmp_path: a socket's path is limited to about 100 bytes.
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    made = Bench(folder)
    yield made
    made.close()
    shutil.rmtree(folder)


FLOWS = """
import asyncio
import os
from pathlib import Path

from prefect import flow, get_run_logger, runtime

PRICE = 1


def leave_sign(flow, flow_run, state):
    Path(os.environ["SIGNS"], f"{flow_run.name}-{state.name}").touch()


@flow(on_cancellation=[leave_sign], on_crashed=[leave_sign])
async def order(wait: bool = False, end: str = ""):
    get_run_logger().info("price %s, parent %s", PRICE, os.getppid())
    get_run_logger().debug("only if asked for")
    name = runtime.flow_run.name
    Path(os.environ["SIGNS"], f"{name}-pid").write_text(str(os.getpid()))
    while wait and not Path(os.environ["SIGNS"], f"{name}-go").exists():
        await asyncio.sleep(0.05)
    exec(end)
"""


class Prefect:
    """A Prefect server, a launcher with its worker, and one deployed flow."""

    def __init__(self, folder: Path, environment: dict[str, str], pool: str) -> None:
        self.folder = folder
        self.environment = environment
        self.pool = pool
        # No idle connections: the server closes them after 5 s, perhaps under a request.
        self.api = httpx.Client(
            base_url=environment["PREFECT_API_URL"],
            timeout=60,
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self.output = folder / f"launcher-{pool}.log"

    def start_launcher(self) -> None:
        command = [sys.executable, "-m", "deployments.launcher", f"--pool={self.pool}"]
        with self.output.open("wb") as output:
            self.launcher = psutil.Popen(
                command, cwd=self.folder, env=self.environment, stdout=output, stderr=output
            )
        self.wait(lambda: "ready" in self.said() and "started!" in self.said())

    def stop_launcher(self) -> None:
        if self.launcher.poll() is None:
            self.launcher.terminate()
        self.launcher.wait()

    def part(self, name: str) -> psutil.Process:
        """The launcher's "worker" or "parent"."""
        module = f"deployments.services.launcher.{name}"
        (found,) = [child for child in self.launcher.children() if module in child.cmdline()]
        return found

    def said(self) -> str:
        """What launcher, parent, worker and runs have printed."""
        return self.output.read_text() if self.output.exists() else ""

    def deploy(self, name: str, entrypoint: str = "shop_flows.orders.order", **fields: Any) -> str:
        flow = self.post("/flows/", name="order")
        deployment = self.post(
            "/deployments/",
            name=name,
            flow_id=flow["id"],
            entrypoint=entrypoint,
            work_pool_name=self.pool,
            **fields,
        )
        return str(deployment["id"])

    def start_run(self, deployment: str, **parameters: Any) -> dict[str, Any]:
        path = f"/deployments/{deployment}/create_flow_run"
        return self.post(path, parameters=parameters)

    def wait_for_state(self, run: dict[str, Any], *names: str) -> dict[str, Any]:
        """The run, once it is in one of the states."""
        path = f"/flow_runs/{run['id']}"
        self.wait(lambda: self.get(path)["state"]["name"] in names)
        return self.get(path)

    def wait_for_pid(self, run: dict[str, Any]) -> int:
        """The process of the run, once its flow runs."""
        sign = self.folder / f"{run['name']}-pid"
        self.wait(lambda: sign.exists() and sign.read_text() != "")
        return int(sign.read_text())

    def let_go(self, run: dict[str, Any]) -> None:
        (self.folder / f"{run['name']}-go").touch()

    def logs(self, run: dict[str, Any]) -> str:
        wanted = {"flow_run_id": {"any_": [run["id"]]}}
        logs = self._request("POST", "/logs/filter", json={"logs": wanted})
        return "\n".join(log["message"] for log in logs)

    def get(self, path: str) -> Any:
        return self._request("GET", path)

    def post(self, path: str, **fields: Any) -> Any:
        return self._request("POST", path, json=fields)

    def _request(self, method: str, path: str, **options: Any) -> Any:
        while True:
            answer = self.api.request(method, path, **options)
            if answer.status_code != 503:  # SQLite is locked: nothing has been stored
                return answer.raise_for_status().json()

    def wait(self, happened: Callable[[], bool], timeout_s: float = 180) -> None:
        deadline = time.monotonic() + timeout_s
        while not happened():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout_s} s; the launcher said:\n{self.said()}")
            time.sleep(0.05)


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """A server without a launcher yet."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "shop_flows").mkdir()
    (folder / "shop_flows" / "__init__.py").touch()
    (folder / "shop_flows" / "orders.py").write_text(FLOWS)
    (folder / "prefect.yaml").write_text(
        "deployments: [{name: a, entrypoint: shop_flows.orders.order}]\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    inherited = {n: v for n, v in os.environ.items() if not n.startswith("PREFECT_")}
    environment = {
        **inherited,
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_WORKER_QUERY_SECONDS": "3600",  # what starts within the test was notified
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[4])]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SIGNS": str(folder),
    }
    # Prefect's own command can stand still for a minute on SQLite.
    command = [sys.executable, "-m", "deployments.services.prefect_on_sqlite", f"--port={port}"]
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    made = Prefect(folder, environment, "tests")
    try:
        made.wait(lambda: _answers(made.api))
        yield made
    finally:
        made.api.close()
        server.terminate()
        server.wait()


@pytest.fixture(scope="session")
def running(prefect: Prefect) -> Iterator[Prefect]:
    """The server with a running launcher."""
    prefect.start_launcher()
    yield prefect
    prefect.stop_launcher()


def _answers(api: httpx.Client) -> bool:
    try:
        return api.get("/health").status_code == 200
    except httpx.TransportError:
        return False
