"""The server whose event loop collects no garbage."""

from __future__ import annotations

import subprocess
import sys

CYCLES = """
import gc, threading, time
from deployments import prefect_on_sqlite
collected_by = set()
class Cycle:
    def __init__(self): self.me = self
    def __del__(self): collected_by.add(threading.current_thread().name)
prefect_on_sqlite.collect_in_a_thread()
deadline = time.monotonic() + 30
while not collected_by and time.monotonic() < deadline:
    [Cycle() for _ in range(10_000)]
    time.sleep(0.01)
assert collected_by == {"garbage"}, collected_by
"""


def test_garbage_is_never_collected_where_the_server_works():
    """However much garbage there is, another thread collects it."""
    done = subprocess.run([sys.executable, "-c", CYCLES], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_it_is_prefects_server():
    """Options and help are those of `prefect server start`."""
    done = subprocess.run(
        [sys.executable, "-m", "deployments.prefect_on_sqlite", "--help"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--analytics-off" in done.stdout or "--host" in done.stdout
