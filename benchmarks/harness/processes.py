"""Processes that are measured: started, waited for, watched, and ended with all they started."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

PROJECT = Path(__file__).resolve().parents[2]


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


def result_of(command: Sequence[str | Path]) -> dict[str, Any]:
    """What a case that runs in a process of its own printed in the end, as JSON."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def peak_mb() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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
