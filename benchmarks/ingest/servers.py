"""The servers that are measured, each started alone and stopped again."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.ingest.load import SECRET

PROJECT = Path(__file__).resolve().parents[2]
_ENDPOINTS = """
integration: benchmark
endpoints:
  github:
    path: /webhooks/github
    scheme: github
    secrets: {env: BENCHMARK_SECRET}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str], url: str, timeout_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers at a URL, whatever it answers; ended with all it started."""
    with log.open("ab") as out:
        server = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            cwd=log.parent,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        _wait(url, server, log, timeout_s)
        yield server
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@contextmanager
def gateway(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The gateway as it is run, with its log and its durable inbox."""
    (folder / "integration.yaml").write_text(_ENDPOINTS)
    environment = {
        "INTEGRATIONS_ENDPOINTS": str(folder),
        "INTEGRATIONS_DATABASE_URL": f"sqlite:///{folder / 'inbox.db'}",
        "BENCHMARK_SECRET": SECRET,
        "PREFECT_API_URL": "http://127.0.0.1:9/api",  # nobody there, and that does not matter
        "PYTHONPATH": str(PROJECT),
    }
    command = [sys.executable, "-m", "deployments.gateway", f"--port={port}"]
    url = f"http://127.0.0.1:{port}/healthz"
    with process(
        command, log=folder / "gateway.log", environment=environment, url=url, timeout_s=30
    ) as server:
        yield server


def stored_deliveries(folder: Path) -> int:
    """What is in the inbox after the server ended."""
    with sqlite3.connect(folder / "inbox.db") as database:
        (count,) = database.execute("select count(*) from inbox_deliveries").fetchone()
    return int(count)


@contextmanager
def empty_handler(folder: Path, port: int, app: str) -> Iterator[subprocess.Popen[bytes]]:
    """A ceiling: uvicorn as the gateway runs it, with a handler that does nothing."""
    command = [
        *(sys.executable, "-m", "uvicorn", f"benchmarks.ingest.empty_app:{app}"),
        *("--port", str(port), "--loop", "uvloop", "--http", "httptools", "--ws", "none"),
        *("--lifespan", "off", "--no-access-log", "--no-server-header", "--no-proxy-headers"),
    ]
    with process(
        command,
        log=folder / "empty.log",
        environment={"PYTHONPATH": str(PROJECT)},
        url=f"http://127.0.0.1:{port}/",
        timeout_s=30,
    ) as server:
        yield server


def resident_mb(server: subprocess.Popen[bytes]) -> float:
    """The memory that a process and those below it hold."""
    return float(sum(each.memory_info().rss for each in _with_children(server)) / 2**20)


def processor_s(server: subprocess.Popen[bytes]) -> list[float]:
    """Seconds of processor time that a process has taken, and each of those below it."""
    times = [each.cpu_times() for each in _with_children(server)]
    return [time.user + time.system for time in times]


def _with_children(server: subprocess.Popen[bytes]) -> list[psutil.Process]:
    process = psutil.Process(server.pid)
    return [process, *process.children(recursive=True)]


def _wait(url: str, server: subprocess.Popen[bytes], log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit(
        f"{server.args} does not answer at {url}; see {log}\n{log.read_text()[-2000:]}"
    )
