"""The servers that are measured, each started alone and stopped again."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness.processes import PROJECT, process
from benchmarks.ingest.load import SECRET

_ENDPOINTS = """
integration: benchmark
endpoints:
  github:
    path: /webhooks/github
    scheme: github
    secrets: {env: BENCHMARK_SECRET}
"""


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
