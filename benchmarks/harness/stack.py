"""The whole chain as processes on this machine: gateway, inbox, Prefect, worker, application.

Each part can be killed and started again, so it serves measurements and fault rounds alike.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import yaml

from sandbox.demo.places import PROJECT, Places, choose_places
from sandbox.send_sample import Sample, endpoint_of, signed_headers
from sandbox.systems.own_app.serving import RunningOwnApp, running_own_app

PREFECT_FILE = Path(__file__).with_name("prefect.yaml")
_PYTHON = [sys.executable, "-m"]
_START_TIMEOUT_S = 120
PREPARE = """
import asyncio, os, sys
from pathlib import Path
from deployments.register_blocks import read_documents, register_types, save_blocks
from deployments.work_pool import ensure_work_pool
register_types()
save_blocks(read_documents(Path(sys.argv[1]), os.environ))
ensure_work_pool("integrations")
"""


class Stack:
    """The parts, by name: server, gateway, worker; the application is in this process.

    Args:
        folder: For data and logs.
        own_app: The application.
        database_url: Where the inbox is; by default a SQLite file in the folder.
        prefect_file: What is deployed.
        connections: More block documents than own app's, by slug.
    """

    def __init__(
        self,
        folder: Path,
        own_app: RunningOwnApp,
        database_url: str | None,
        *,
        prefect_file: Path = PREFECT_FILE,
        connections: Mapping[str, Any] | None = None,
    ) -> None:
        self._prefect_file = prefect_file
        self._connections = connections or {}
        self.folder = folder
        self.own_app = own_app
        self.places: Places = choose_places(folder, free_ports=True)
        self.environment = self.places.environment() | {
            "INVENTORY_WEBHOOK_SECRET": "whsec_" + secrets.token_hex(16),
            "PREFECT_LOGGING_LEVEL": "WARNING",
        }
        if database_url:
            self.environment["INTEGRATIONS_DATABASE_URL"] = database_url
        self._endpoint = endpoint_of("inventory_updates")
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._commands = {
            "server": [
                *(*_PYTHON, "deployments.prefect_on_sqlite", "--host", "127.0.0.1"),
                *("--port", str(self.places.ports["prefect"])),
            ],
            "gateway": [*_PYTHON, "deployments.gateway", f"--port={self.places.ports['gateway']}"],
            "worker": [
                *(*_PYTHON, "deployments.launcher", "--pool=integrations", "--limit=4"),
                f"--prefect-file={self._prefect_file}",
            ],
            "stock-worker": [
                *(*_PYTHON, "prefect", "worker", "start", "--pool=integrations"),
                *("--type=process", "--limit=4"),
            ],
        }

    @property
    def python(self) -> list[str]:
        """This Python."""
        return [sys.executable]

    def start(self, name: str) -> None:
        """Start a part; returns when it answers."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                self._commands[name],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                cwd=PROJECT,
                start_new_session=True,
            )
        urls = {
            "server": f"{self.places.api_url}/health",
            "gateway": f"{self.places.gateway_url}/healthz",
        }
        if name in urls:
            self.wait_until(lambda: _answers(urls[name]), f"the {name} did not start")

    def kill(self, name: str, signal_: int = signal.SIGKILL) -> None:
        """End a part, by default at once."""
        process = self._running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            # the worker's flow runs are in sessions of their own and live on
            os.killpg(process.pid, signal_)
        process.wait(30)

    def kill_flow_runs(self) -> int:
        """Kill every process that executes a flow run; returns how many there were."""
        found = [pid for pid in self._our_processes() if _executes_a_flow_run(pid)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(found)

    def deploy(self) -> None:
        """Save the application's block and deploy the flows."""
        blocks = self.folder / "blocks.yaml"
        document = {
            "base_url": f"{self.own_app.base_url}/api/v1",
            "auth": {"kind": "api_key", "key": self.own_app.api_key},
        }
        blocks.write_text(yaml.safe_dump({"http-api/own-app": document, **self._connections}))
        self.run([sys.executable, "-c", PREPARE, str(blocks)])
        self.run(
            [
                *_PYTHON,
                "prefect",
                "--no-prompt",
                "deploy",
                "--all",
                f"--prefect-file={self._prefect_file}",
            ]
        )

    def run(self, command: list[str]) -> str:
        """Run a command in the stack's environment to its end."""
        done = subprocess.run(
            command, env=self.environment, cwd=PROJECT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{command} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def send(self, items: Sequence[str]) -> list[bool]:
        """Send one signed update of each item over one connection.

        Returns:
            Which were acknowledged: all others may or may not have been stored.
        """
        address = ("127.0.0.1", self.places.ports["gateway"])
        connection = http.client.HTTPConnection(*address, timeout=30)
        acknowledged = []
        for item in items:
            update = {"item": item, "action": "add", "quantity": 1}
            body = json.dumps({"event": "INVENTORY_UPDATE", "updates": [update]}).encode()
            sample = Sample("inventory_updates", "INVENTORY_UPDATE", body)
            headers = signed_headers(
                self._endpoint,
                sample,
                self.environment["INVENTORY_WEBHOOK_SECRET"],
                now=datetime.now(UTC),
            )
            try:
                connection.request("POST", self._endpoint.path, body, headers)
                response = connection.getresponse()
                response.read()
                acknowledged.append(response.status < 300)
            except (OSError, http.client.HTTPException):
                acknowledged.append(False)
                connection.close()
        connection.close()
        return acknowledged

    def make_items(self, count: int) -> list[str]:
        """Put so many items with no stock into the application."""
        return self.make_items_named([f"item-{number}" for number in range(count)])

    def make_items_named(self, items: list[str]) -> list[str]:
        """Put items with no stock into the application."""
        records = [{"sku": item, "name": item, "quantity": 0} for item in items]
        self.own_app.http.post(
            "/api/v1/inventory/batch",
            json={"records": records},
            headers={"Idempotency-Key": secrets.token_hex(8)},
        ).raise_for_status()
        return items

    def stock(self) -> dict[str, int]:
        """Item to quantity: the sum of all effects."""
        return {each["sku"]: each["quantity"] for each in self.own_app.records("inventory")}

    def effects(self) -> int:
        """How many updates had their effect."""
        with sqlite3.connect(self.folder / "own_app.db", timeout=60) as database:
            (count,) = database.execute(
                "SELECT count(*) FROM answer WHERE idempotency_key LIKE '%-0'"
            ).fetchone()
        return int(count)

    def statuses(self) -> dict[str, int]:
        """Deliveries in the inbox by status."""
        output = self.run([*_PYTHON, "deployments.inbox", "counts"])
        return {line.split()[1]: int(line.split()[2]) for line in output.splitlines()}

    def task_runs(self, named: str = "%") -> dict[str, int]:
        """Task runs that Prefect has recorded, by state; `named` is a pattern of SQL."""
        with sqlite3.connect(self.folder / "prefect" / "prefect.db", timeout=60) as database:
            return dict(
                database.execute(
                    "SELECT state_name, count(*) FROM task_run WHERE name LIKE ? GROUP BY 1",
                    [named],
                )
            )

    def flow_runs(self) -> dict[str, int]:
        """Flow runs by deployment's flow and state."""
        with sqlite3.connect(self.folder / "prefect" / "prefect.db", timeout=60) as database:
            return dict(
                database.execute(
                    "SELECT f.name || ' ' || r.state_name, count(*) FROM flow_run r "
                    "JOIN flow f ON f.id = r.flow_id GROUP BY 1"
                )
            )

    def processor_s(self) -> float:
        """Seconds of processor time that all parts have taken, the application included."""
        return sum(self.processor_by_part_s().values())

    def processor_by_part_s(self) -> dict[str, float]:
        """The same by part, each with all that it started."""
        parts = {
            name: [root := psutil.Process(process.pid), *root.children(recursive=True)]
            for name, process in self._running.items()
        }
        parts["own app and senders"] = [psutil.Process()]
        return {name: sum(map(_processor_s, processes)) for name, processes in parts.items()}

    def wait_for_quiet(self) -> None:
        """Wait until no flow run is under way."""
        self.wait_until(
            lambda: not any("Running" in name or "Pending" in name for name in self.flow_runs()),
            "a run does not end",
        )

    def wait_until(
        self, condition: Callable[[], bool], otherwise: str, timeout_s: float = _START_TIMEOUT_S
    ) -> None:
        """Wait for a condition, or end with the message."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"{otherwise}; see {self.folder}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End everything that was started."""
        for name in reversed(list(self._running)):
            with contextlib.suppress(ProcessLookupError):
                self._running[name].send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._running[name].wait(15)
            self.kill(name)
        for pid in self._our_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _our_processes(self) -> Iterator[int]:
        mark = f"PREFECT_HOME={self.folder / 'prefect'}".encode()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


@contextmanager
def running_stack(
    folder: Path, *, database_url: str | None = None, worker: bool = True, **options: Any
) -> Iterator[Stack]:
    """The chain, deployed and waiting; stopped at the end. `options` are those of `Stack`."""
    with running_own_app(folder / "own_app.db") as own_app:
        stack = Stack(folder, own_app, database_url, **options)
        try:
            stack.start("server")
            stack.start("gateway")
            stack.deploy()
            if worker:
                stack.start("worker")
            yield stack
        finally:
            stack.stop()


def _processor_s(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        own: float = times.user + times.system
        return own + times.children_user + times.children_system  # those that have ended
    return 0.0


def _executes_a_flow_run(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"PREFECT__FLOW_RUN_ID=" in Path(f"/proc/{pid}/environ").read_bytes()
    return False


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
