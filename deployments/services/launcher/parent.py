"""The process that has imported everything and forks a child for each flow run.

It runs under the launcher. When its loaded code changes, it restarts itself in place between two
forks: its children continue undisturbed, and new clients wait.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from deployments.services.launcher.child import Child
from deployments.services.launcher.loaded_code import CodeWatch, files_to_watch
from deployments.services.launcher.preload import (
    ENGINE_MODULES,
    flow_modules,
    fork_hazards,
    import_all,
    import_safe,
    open_descriptors,
    warm_up,
)
from deployments.services.launcher.protocol import ENGINE, is_same_user

_STDIN = 0
_BACKLOG = 1024
_LOOK_FOR_CHANGES_EVERY_MS = 1000


def main() -> None:
    """Serve until standard input closes, which ties this process to the one that started it.

    Then, or on SIGTERM, wait for active runs, so that none outlives its client.
    """
    arguments = _arguments()
    child = Child(arguments.engine)
    # Registered before any import can register more handlers, so it runs last.
    atexit.register(child.leave)
    parent = Parent(arguments.socket, arguments.inherit)
    watch = _preload(arguments, parent)
    child.prepare()
    gc.collect()
    gc.freeze()  # so that collections in the children leave these pages shared
    connection = parent.serve(watch.is_stale)
    if connection is None:
        _say("code has changed: importing it anew")
        _restart(parent)
    child.run(connection)


class Parent:
    """Accepts clients, forks children and reaps them."""

    def __init__(self, path: str, inherited: str = "") -> None:
        """Listen at a path, or take over the descriptors of `hand_over`."""
        listener, *children = [int(number) for number in inherited.split(",") if number] or [-1]
        if listener < 0:
            Path(path).unlink(missing_ok=True)
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen(_BACKLOG)
        else:
            self._listener = socket.socket(fileno=listener)
        self._connections = {
            pid: socket.socket(fileno=number)
            for pid, number in zip(children[::2], children[1::2], strict=True)
        }
        self._is_leaving = False
        self._wake, self._woken = os.pipe()
        os.set_blocking(self._woken, False)

    def serve(self, is_stale: Callable[[], bool]) -> socket.socket | None:
        """Fork a child for each client.

        Returns:
            The connection to its client, in a child. None in the parent, once `is_stale` says
            so.
        """
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_is_leaving", True))
        signal.set_wakeup_fd(self._woken)
        while True:
            ready = self._wait()
            self._reap()
            self._is_leaving |= _STDIN in ready
            for pid, connection in list(self._connections.items()):
                if connection.fileno() in ready:
                    self._kill(pid)
            if self._is_leaving:
                self._listener.close()
                if not self._connections:
                    sys.exit()
                continue
            new = self._listener.fileno() in ready
            if (new or not ready) and is_stale():
                return None
            if new and (client := self._fork()):
                return client

    def hand_over(self) -> str:
        """Make the listener and the connections survive `exec`, and return their descriptors."""
        sockets = [self._listener, *self._connections.values()]
        for one in sockets:
            one.set_inheritable(True)
        pairs = [f"{pid},{connection.fileno()}" for pid, connection in self._connections.items()]
        return ",".join([str(self._listener.fileno()), *pairs])

    def _wait(self) -> set[int]:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if not self._is_leaving:
            poll.register(self._listener, select.POLLIN)
            poll.register(_STDIN, 0)  # 0: report only that the other end is gone
        for connection in self._connections.values():
            poll.register(connection, 0)
        ready = {descriptor for descriptor, _ in poll.poll(_LOOK_FOR_CHANGES_EVERY_MS)}
        if self._wake in ready:
            os.read(self._wake, 4096)
        return ready

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            connection = self._connections.pop(pid, None)
            if connection is None:
                continue  # not a run, but a process that an import has started
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"exit %d\n" % os.waitstatus_to_exitcode(status))

    def _kill(self, pid: int) -> None:
        # The whole group, so that the run's own processes end too.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            os.killpg(pid, signal.SIGKILL)

    def _fork(self) -> socket.socket | None:
        connection, _ = self._listener.accept()
        if not is_same_user(connection):
            connection.close()
            return None
        try:
            pid = os.fork()
        except OSError as exc:
            with connection, contextlib.suppress(OSError):
                connection.sendall(f"refused {exc}\n".encode())
            return None
        if pid:
            self._connections[pid] = connection
            return None
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        for other in (self._listener, *self._connections.values()):
            other.close()
        os.close(self._wake)
        os.close(self._woken)
        return connection


def _preload(arguments: argparse.Namespace, parent: Parent) -> CodeWatch:
    began_at = time.time()
    descriptors = open_descriptors()
    wanted = [*flow_modules(arguments.prefect_file), *arguments.preload]
    if arguments.engine == ENGINE:
        wanted = [*ENGINE_MODULES, *wanted]
    failures = import_safe(wanted, descriptors) if arguments.careful else import_all(wanted)
    warm_up()
    for module, exc in failures.items():
        _say(f"{module} is not preloaded: {type(exc).__name__}: {exc}")
    if hazards := fork_hazards(descriptors):
        _say(f"imports have left behind what a fork would break: {', '.join(hazards)}")
        if arguments.careful:
            sys.exit(1)
        _say("importing only what leaves nothing behind")
        _restart(parent, "--careful")
    watch = CodeWatch(
        [arguments.prefect_file, *files_to_watch(failures.values())], imported_since=began_at
    )
    count = len(wanted) - len(failures)
    _say(f"ready: {count} modules preloaded in {time.time() - began_at:.1f} s")
    return watch


def _restart(parent: Parent, *options: str) -> NoReturn:
    kept = [option for option in sys.argv[1:] if not option.startswith("--inherit=")]
    inherit = f"--inherit={parent.hand_over()}"
    module = "deployments.services.launcher.parent"
    command = [sys.executable, "-m", module, *kept, *options, inherit]
    os.execv(sys.executable, command)  # noqa: S606 - the same program again


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deployments.services.launcher.parent")
    parser.add_argument("--socket", required=True)
    parser.add_argument("--prefect-file", type=Path, default=Path("prefect.yaml"))
    parser.add_argument("--preload", action="append", default=[], metavar="MODULE")
    parser.add_argument("--engine", default=ENGINE, help="the module that runs a flow run")
    parser.add_argument("--careful", action="store_true", help="try each import in a fork first")
    parser.add_argument("--inherit", default="", help="descriptors kept across a restart")
    return parser.parse_args()


def _say(text: str) -> None:
    print(f"launcher: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
