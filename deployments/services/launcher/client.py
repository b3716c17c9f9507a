"""The command of a flow run: uses a warm child if there is one, else runs the plain engine.

To the worker that starts it, this process is the flow run: it forwards its signals to the child
and exits like the child, by exit code or by signal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import IO

from deployments.services.launcher.protocol import (
    SOCKET_VARIABLE,
    VERSION,
    is_same_user,
    run_engine,
    send_request,
)

# The parent responds in milliseconds, except while it imports changed code: then waiting takes
# no longer than the plain engine, which imports the same.
_HELLO_TIMEOUT_S = 10.0
_FORWARDED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


class NotStartedError(Exception):
    """No run was started, so the plain engine may start it."""


def main() -> None:
    """Run the flow run named in the environment."""
    try:
        code = run_warm()
    except NotStartedError as exc:
        _say_once(f"no fast start ({exc}); flow runs start with the plain engine instead")
        run_engine()
    else:
        _leave(code)


def run_warm() -> int:
    """Run in a child of the launcher until it ends.

    Returns:
        Its exit code, negative if a signal ended it.

    Raises:
        NotStartedError: There is no such child.
    """
    path = os.environ.get(SOCKET_VARIABLE)
    if not path:
        raise NotStartedError("the worker runs without `python -m deployments.launcher`")
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.settimeout(_HELLO_TIMEOUT_S)
            connection.connect(path)
            if not is_same_user(connection):
                raise NotStartedError("the launcher's socket belongs to another user")
            lines = connection.makefile("rb")
            pid = _read_hello(lines)
        except OSError as exc:
            raise NotStartedError(f"the launcher does not answer: {exc}") from exc
        with _signals_forwarded(pid):
            try:
                send_request(connection)
            except OSError as exc:
                raise NotStartedError(f"the launcher has gone: {exc}") from exc
            connection.settimeout(None)
            return _follow(lines)


def _read_hello(lines: IO[bytes]) -> int:
    word, _, rest = lines.readline().decode().rstrip().partition(" ")
    if word == "refused":
        raise NotStartedError(rest)
    version, _, pid = rest.partition(" ")
    if word != "hello" or version != VERSION:
        raise NotStartedError("the launcher is starting or of another version")
    return int(pid)


@contextlib.contextmanager
def _signals_forwarded(pid: int) -> Iterator[None]:
    received: list[int] = []

    def forward(number: int, _frame: object) -> None:
        received.append(number)
        with contextlib.suppress(ProcessLookupError):  # gone; its exit code is about to arrive
            os.kill(pid, number)

    forwarded = (getattr(signal, name) for name in _FORWARDED)
    before = {number: signal.signal(number, forward) for number in forwarded}
    try:
        yield
    except NotStartedError:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:  # it was meant for the run, which is still this process
            os.kill(os.getpid(), received[0])
        raise


def _follow(lines: IO[bytes]) -> int:
    try:
        for line in lines:
            word, _, rest = line.decode().rstrip().partition(" ")
            if word == "refused":
                raise NotStartedError(rest)
            if word == "exit":
                return int(rest)
    except OSError:
        pass
    # Neither child nor parent is left to report: only a kill does that.
    return -int(signal.SIGKILL)


def _leave(code: int) -> None:
    if code >= 0:
        sys.exit(code)
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the child has dumped its core already
    if -code not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)


def _say_once(notice: str) -> None:
    # Once per worker, which starts a client for each run.
    import tempfile
    from pathlib import Path

    path = os.environ.get(SOCKET_VARIABLE)
    folder = Path(path).parent if path else Path(tempfile.gettempdir())
    with contextlib.suppress(OSError):
        (folder / f"plain-engine-{os.getppid()}").touch(exist_ok=False)
        print(notice, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
