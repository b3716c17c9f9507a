"""Runs the gateway in its own process on a free port, for tests and measurements."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunningGateway:
    """A running gateway.

    Attributes:
        process: Its process.
        url: Where it listens.
    """

    process: subprocess.Popen[bytes]
    url: str


@contextmanager
def running_gateway(
    declarations: Path, logs: Path, database_url: str, environment: Mapping[str, str]
) -> Iterator[RunningGateway]:
    """Start it, and kill it at the end.

    Args:
        declarations: The file or folder with its endpoints.
        logs: Where `access.log` and `said.log` go.
        database_url: URL of the state database.
        environment: Secrets and other settings; without PREFECT_API_URL it notifies nobody.
    """
    said = logs / "said.log"
    complete = {
        **os.environ,
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
        "INTEGRATIONS_ENDPOINTS": str(declarations),
        "INTEGRATIONS_DATABASE_URL": database_url,
        **environment,
    }
    with (logs / "access.log").open("wb") as log, said.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.gateway", "--port", "0"],
            env=complete,
            stdout=log,
            stderr=errors,
        )
    try:
        while not (found := re.search(r"listens on (http://[\d.:]+)", said.read_text())):
            if process.poll() is not None:
                raise RuntimeError(said.read_text())
            time.sleep(0.02)
        yield RunningGateway(process, found[1])
    finally:
        process.kill()
        process.wait()
