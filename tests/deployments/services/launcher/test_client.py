"""Where there is no warm child, the client runs the plain engine and says so once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading

import pytest

from deployments.services.launcher.client import NotStartedError, run_warm
from deployments.services.launcher.protocol import SOCKET_VARIABLE, VERSION, receive_request

NO_RUN = "Invalid flow run id"  # what the plain engine says to an environment without one


def answer(listener: socket.socket, line: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(line)


def test_the_plain_engine_takes_over_and_it_is_said_once(bench):
    """Of two runs of one worker without a launcher, both run and the first one says why."""
    bench.socket = None
    bench.environment.pop(SOCKET_VARIABLE)
    bench.environment["TMPDIR"] = str(bench.folder)
    said = [bench.start_job("").communicate()[1] for _ in range(2)]
    assert [NO_RUN in text for text in said] == [True, True]
    assert ["no fast start" in text for text in said] == [True, False]


def test_a_worker_without_the_launcher(monkeypatch):
    """Without the launcher's variable nothing is started."""
    monkeypatch.delenv(SOCKET_VARIABLE, raising=False)
    with pytest.raises(NotStartedError, match=r"without `python -m deployments.launcher`"):
        run_warm()


def test_no_parent(bench, monkeypatch):
    """A socket that nobody listens on, or that is gone, means that nothing is started."""
    monkeypatch.setenv(SOCKET_VARIABLE, str(bench.socket))
    with pytest.raises(NotStartedError, match="does not answer"):
        run_warm()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(bench.socket))
    with pytest.raises(NotStartedError, match="does not answer"):
        run_warm()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"hello 0 1\n", "another version"),
        (b"refused no memory\n", "no memory"),
        (b"", "another version"),
        (b"HTTP/1.1 400 Bad Request\r\n", "another version"),
    ],
)
def test_a_parent_that_is_not_ours(bench, monkeypatch, line, reason):
    """Another version's parent, a refusal or a hang-up: nothing is started."""
    monkeypatch.setenv(SOCKET_VARIABLE, str(bench.socket))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bench.socket))
        listener.listen()
        thread = threading.Thread(target=answer, args=(listener, line))
        thread.start()
        with pytest.raises(NotStartedError, match=reason):
            run_warm()
        thread.join()


def test_a_signal_to_a_run_that_is_refused_is_not_lost(bench):
    """A signal that came before the launcher refused ends the run, which nobody has started."""
    with subprocess.Popen(["sleep", "600"]) as child, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bench.socket))
        listener.listen()
        job = bench.start_job("")
        connection, _ = listener.accept()
        with connection:
            connection.sendall(f"hello {VERSION} {child.pid}\n".encode())
            for descriptor in receive_request(connection).streams:
                os.close(descriptor)
            job.send_signal(signal.SIGTERM)
            assert child.wait() == -signal.SIGTERM
            connection.sendall(b"refused no memory\n")
            assert job.wait() == -signal.SIGTERM
