"""Turns a fork of the parent into the process that a client asked for, and runs the engine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import warnings
from pathlib import Path

from deployments.services.launcher.loaded_code import ReusedModules, project_modules
from deployments.services.launcher.protocol import VERSION, Request, receive_request, run_engine

# Read once, when Python or the C library starts: a fork cannot change them.
_FIXED_AT_START = (b"PYTHON", b"LD_", b"DYLD_", b"LC_", b"LANG", b"MALLOC_")


class Child:
    """One flow run's process, from the fork to its end."""

    def __init__(self, engine: str) -> None:
        """Name the module that runs a flow run."""
        self._engine = engine
        self._code: int | None = None

    def prepare(self) -> None:
        """Do in the parent, after its imports, the work that is the same for every child.

        In a child, iterating over thousands of modules would write to all their memory pages.
        """
        self._modules = ReusedModules(project_modules())
        for folder in [path for path, finder in sys.path_importer_cache.items() if not finder]:
            del sys.path_importer_cache[folder]  # it may exist by then
        self._prefect = None
        if "prefect" in sys.modules:
            from deployments.services.launcher.prefect_setup import PrefectSetup

            self._prefect = PrefectSetup()

    def run(self, connection: socket.socket) -> None:
        """Take over the client's request and run the engine; exit like any Python program.

        Args:
            connection: A new connection to the client.
        """
        self._connection = connection
        self._say(f"hello {VERSION} {os.getpid()}")
        try:
            request = receive_request(connection)
        except (EOFError, OSError):
            os._exit(0)  # the client has run the plain engine or is gone
        if obstacle := _obstacle(request):
            self._say(f"refused {obstacle}")
            os._exit(0)
        _take_over(request)
        self._modules.install()
        if self._prefect:
            self._prefect.refresh()
        self._say("started")
        threading.Thread(target=self._die_with_client, daemon=True, name="launcher").start()
        # `-m` would warn that the module it runs has been imported already.
        warnings.filterwarnings("ignore", f"'{self._engine}' found in sys.modules", RuntimeWarning)
        self._code = 1
        try:
            run_engine(self._engine)
            self._code = 0
        except SystemExit as exc:
            self._code = _exit_code(exc)
            raise
        except KeyboardInterrupt:
            self._code = -signal.SIGINT
            raise

    def leave(self) -> None:
        """Send the client the exit code and end, as the last step at exit."""
        if self._code is None:
            return
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # closed, or without a reader
                stream.flush()
        self._say(f"exit {self._code}")
        # Finalising the interpreter would write to, and so copy, memory shared with the parent.
        os._exit(self._code & 0xFF)

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the client is gone, which ends this process too
            self._connection.sendall(line.encode(errors="replace") + b"\n")

    def _die_with_client(self) -> None:
        # The parent does the same, even while this process holds the interpreter's lock; the
        # thread is for the case that the parent is gone.
        with contextlib.suppress(OSError):
            self._connection.recv(1)
        os.killpg(0, signal.SIGKILL)


def _obstacle(request: Request) -> str | None:
    if request.prefix != os.fsencode(sys.prefix):
        return "the launcher runs another Python"
    asked, here = (
        {name: value for name, value in variables.items() if name.startswith(_FIXED_AT_START)}
        for variables in (request.variables, os.environb)
    )
    if asked == here:
        return None
    names = sorted(name for name, _ in asked.items() ^ here.items())
    return f"{os.fsdecode(names[0])} differs from the launcher's"


def _take_over(request: Request) -> None:
    for number, descriptor in enumerate(request.streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environb.update(request.variables)
    time.tzset()
    os.chdir(request.directory)
    if not sys.flags.safe_path:
        sys.path[0] = str(Path.cwd())
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()  # Python's own generator reseeds itself in a fork


def _exit_code(exc: SystemExit) -> int:
    if exc.code is None:
        return 0
    return exc.code & 0xFF if isinstance(exc.code, int) else 1
