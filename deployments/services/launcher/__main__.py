"""Starts a worker with fast starts: `python -m deployments.launcher --pool NAME`."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deployments.services.launcher.protocol import SOCKET_VARIABLE, WORKER_STOPS_WITHIN_S

_PARENT_STOPS_WITHIN_S = 5.0
_STOPS_WITHIN_S = 20
_LOOK_EVERY_S = 1.0
_SHORTEST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0


def main() -> int:
    """Run worker and parent until the worker ends; forward SIGINT and SIGTERM to the worker.

    If it has not ended some seconds after the first signal, it is killed with its runs.

    Returns:
        The worker's exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m deployments.launcher", description=__doc__)
    parser.add_argument(
        "--pool", required=True, help="work pool of type process; created if missing"
    )
    parser.add_argument("--name", help="the worker's name")
    parser.add_argument("--work-queue", action="append", default=[], help="serve only this queue")
    parser.add_argument("--limit", type=int, help="runs at once")
    parser.add_argument("--prefect-file", default="prefect.yaml", help="whose flows to preload")
    parser.add_argument("--preload", action="append", default=[], help="one more module")
    options = parser.parse_args()
    worker = [f"--pool={options.pool}", *(f"--work-queue={q}" for q in options.work_queue)]
    worker += [f"--name={options.name}"] if options.name else []
    worker += [f"--limit={options.limit}"] if options.limit else []
    if sys.platform not in ("linux", "darwin"):
        print("launcher: fast starts need Linux or macOS; starting the stock worker", flush=True)
        stock = [sys.executable, "-m", "prefect", "worker", "start", *worker]
        return subprocess.call(stock)  # noqa: S603 - the user's own options
    parent = [
        f"--prefect-file={options.prefect_file}",
        *(f"--preload={m}" for m in options.preload),
    ]
    with tempfile.TemporaryDirectory(prefix="launcher-") as folder:  # made with mode 0700
        return Launcher(str(Path(folder) / "socket"), worker, parent).run()


class Launcher:
    """Keeps a parent running for as long as the worker runs."""

    def __init__(self, path: str, worker_options: list[str], parent_options: list[str]) -> None:
        """Take the command line options of both."""
        self._kill_at: float | None = None
        here = "deployments.services.launcher"
        self._worker_command = [f"{here}.worker", *worker_options]
        self._parent_command = [f"{here}.parent", f"--socket={path}", *parent_options]
        # `python` in the pool's command is this Python, wherever the worker is started from.
        search = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        self._environment = {
            **os.environ,
            SOCKET_VARIABLE: path,
            "PATH": os.pathsep.join(search),
            # Otherwise macOS kills forks of a process that has used its Objective-C libraries.
            "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",
        }

    def run(self) -> int:
        """Run until the worker ends; return its exit code."""
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        worker = self._start(self._worker_command)
        for number, sent in (
            (signal.SIGINT, signal.SIGINT),
            (signal.SIGTERM, signal.SIGTERM),
            (signal.SIGHUP, signal.SIGTERM),
        ):
            signal.signal(number, lambda *_, sent=sent: self._stop(worker, sent))
        parent = self._start_parent()
        started_at, pause_s = time.monotonic(), _SHORTEST_PAUSE_S
        while worker.poll() is None:
            lived_s = time.monotonic() - started_at
            if parent.poll() is not None and lived_s >= pause_s:
                code = parent.returncode
                print(f"launcher: the parent has ended ({code}); starting another", flush=True)
                pause_s = _SHORTEST_PAUSE_S if lived_s > _LONGEST_PAUSE_S else 2 * pause_s
                pause_s = min(pause_s, _LONGEST_PAUSE_S)
                parent, started_at = self._start_parent(), time.monotonic()
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                _kill_group(worker)
                print("launcher: the worker did not end; killed it and its runs", flush=True)
            if select.select([wake], [], [], _LOOK_EVERY_S)[0]:
                os.read(wake, 4096)
        assert parent.stdin is not None  # noqa: S101 - started with a pipe
        parent.stdin.close()
        parent.terminate()  # it ends when its last run has ended
        if self._kill_at is not None:
            _kill_group(worker)  # processes that it has left behind
            try:
                parent.wait(_PARENT_STOPS_WITHIN_S)
            except subprocess.TimeoutExpired:
                parent.kill()
        return worker.returncode if worker.returncode >= 0 else 128 - worker.returncode

    def _stop(self, worker: subprocess.Popen[bytes], number: int) -> None:
        if self._kill_at is None:
            self._kill_at = time.monotonic() + WORKER_STOPS_WITHIN_S
            signal.alarm(_STOPS_WITHIN_S)  # in case this process hangs, e.g. on a full pipe
        worker.send_signal(number)

    def _start_parent(self) -> subprocess.Popen[bytes]:
        # Its children log to the worker, and inherit from logging that there is no terminal
        # to colour for.
        return self._start(self._parent_command, TERM="dumb")

    def _start(self, module_and_options: list[str], **more: str) -> subprocess.Popen[bytes]:
        # In its own session, so that Ctrl-C in a terminal reaches the worker once, through this
        # process. The pipe closes when this process is gone.
        return subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-m", *module_and_options],
            env={**self._environment, **more},
            stdin=subprocess.PIPE,
            start_new_session=True,
        )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
