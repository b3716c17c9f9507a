"""Runs Prefect's server on SQLite: `python -m deployments.prefect_on_sqlite [--host …] [--port …]`.

It is `prefect server start` with the garbage collected by a thread of its own. Left to itself,
Python collects wherever it happens to be, which may be the server's event loop; and a forgotten
cursor among the garbage waits there for its connection, whose thread waits for SQLite's write
lock, whose holder waits for the event loop: all stand still for a minute, until SQLite gives up
with "database is locked".
"""

from __future__ import annotations

import gc
import runpy
import sys
import threading
import time

_YOUNG_EVERY_S = 0.5
_OLD_AFTER = 60  # times
_MIDDLE_AFTER = 10


def main() -> None:
    """Serve until SIGTERM or SIGINT, with the options of `prefect server start`."""
    collect_in_a_thread()
    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def collect_in_a_thread() -> threading.Thread:
    """Collect garbage from now on in a thread that nothing waits for."""
    gc.disable()
    thread = threading.Thread(target=_collect, name="garbage", daemon=True)
    thread.start()
    return thread


def _collect() -> None:
    count = 0
    while True:
        time.sleep(_YOUNG_EVERY_S)
        count += 1
        gc.collect(2 if count % _OLD_AFTER == 0 else 1 if count % _MIDDLE_AFTER == 0 else 0)


if __name__ == "__main__":
    main()
