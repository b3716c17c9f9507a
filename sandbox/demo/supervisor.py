"""Starts processes, prints their output line by line, and leaves none behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

_TURN_S = 5.0
_GRACE_S = 30.0  # no service promises to end in less
_LAST_WORDS_S = 5.0


class ProcessEndedError(Exception):
    """A process that should keep running has ended."""


@dataclass(slots=True)
class _Running:
    name: str
    process: subprocess.Popen[str]
    log: Path
    reader: threading.Thread


class Supervisor:
    """Runs processes in their own process groups and stops them in reverse order.

    Args:
        logs: Directory for one log file per process.
        show: Returns the text to print for a line, or None.
        out: Where to print.
        turn_s: Seconds that a stop waits for one process before it also stops the next.
        grace_s: Seconds that all of them together have to end before they are killed.
    """

    def __init__(
        self,
        logs: Path,
        *,
        show: Callable[[str, str], str | None],
        out: TextIO = sys.stdout,
        turn_s: float = _TURN_S,
        grace_s: float = _GRACE_S,
    ) -> None:
        self._logs = logs
        self._show = show
        self._out = out
        self._turn_s = turn_s
        self._grace_s = grace_s
        self._running: list[_Running] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Start a process; its output goes to `<logs>/<name>.log` and, as `show` says, to `out`."""
        process = subprocess.Popen(  # noqa: S603 - our own commands
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches us only; we stop the others in order
        )
        log = self._logs / f"{name}.log"
        reader = threading.Thread(target=self._follow, args=(name, process, log), daemon=True)
        reader.start()
        self._running.append(_Running(name, process, log, reader))

    def run(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Run a process to its end.

        Raises:
            ProcessEndedError: It failed; the message has the last lines of its log.
        """
        self.start(name, command, env)
        running = self._running.pop()
        try:
            status = running.process.wait()
        except BaseException:
            self._stop([running])
            raise
        running.reader.join()
        if status != 0:
            raise ProcessEndedError(_ended(running, status))

    def check(self) -> None:
        """Raise `ProcessEndedError` if a process that should run has ended."""
        for running in self._running:
            status = running.process.poll()
            if status is not None:
                running.reader.join(timeout=5)
                raise ProcessEndedError(_ended(running, status))

    def wait_until(self, ready: Callable[[], bool], *, what: str, timeout_s: float) -> None:
        """Wait for a condition while all processes keep running.

        Raises:
            ProcessEndedError: One ended.
            TimeoutError: The condition was not met in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while not ready():
            self.check()
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{what} was not ready after {timeout_s:.0f} s")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop all processes, the last started first; kill those that do not end."""
        running, self._running = self._running[::-1], []
        self._stop(running)

    def _stop(self, stopping: Sequence[_Running]) -> None:
        until_s = time.monotonic() + self._grace_s
        for each in stopping:
            if each.process.poll() is None:
                each.process.send_signal(signal.SIGTERM)
                _wait(each.process, min(time.monotonic() + self._turn_s, until_s))
        for each in stopping:
            _wait(each.process, until_s)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(each.process.pid, signal.SIGKILL)  # whoever is left of its group
            each.process.wait()
        for each in stopping:
            each.reader.join(max(0, until_s + _LAST_WORDS_S - time.monotonic()))

    def _follow(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdout is not None, "started with a pipe"  # noqa: S101
        with log.open("a", buffering=1) as file, process.stdout:
            for line in process.stdout:
                file.write(line)
                shown = self._show(name, line.rstrip())
                if shown is not None:
                    print(shown, file=self._out, flush=True)


def _wait(process: subprocess.Popen[str], until_s: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0, until_s - time.monotonic()))


def _ended(running: _Running, status: int) -> str:
    lines = running.log.read_text(errors="replace").splitlines()[-15:]
    told = "\n".join(f"    {line}" for line in lines)
    return f"{running.name} ended with status {status}; its last lines ({running.log}):\n{told}"
