"""moto's SQS in a process of its own, without what makes it slow and what loses messages.

moto counts a queue's messages for each one that is sent or received, and asks the calendar for
the time at each step of that: 30 ms for one message beside 2,000 others. Its threads do not wait
for each other: a message sent while others are deleted may be gone.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Lock
from typing import Any

from sandbox.systems import s3_server

_POLL_S = 0.05


@contextmanager
def started() -> Iterator[str]:
    """The address of a running service; it forgets everything when it ends."""
    command = [sys.executable, "-m", "benchmarks.listeners.sqs_service"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None, "started with pipes"
        yield process.stdout.readline().decode().strip()
        process.terminate()


def main() -> None:
    """Be the service's process, until the input ends."""
    from moto.sqs import models

    models.unix_time_millis = lambda: time.time() * 1000
    for which in ("", "_delayed", "_not_visible"):
        roughly = property(lambda queue: len(queue._messages))
        setattr(models.Queue, f"approximate_number_of_messages{which}", roughly)
    one_at_a_time = Lock()
    for name in ("send_message", "delete_message", "change_message_visibility"):
        method = getattr(models.SQSBackend, name)
        setattr(models.SQSBackend, name, _alone(method, one_at_a_time))
    receive = _alone(models.SQSBackend.receive_message, one_at_a_time)
    models.SQSBackend.receive_message = _patiently(receive)
    with s3_server.start() as service:
        print(service.endpoint_url, flush=True)
        sys.stdin.read()


def _alone(method: Callable[..., Any], lock: Lock) -> Callable[..., Any]:
    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        with lock:
            return method(*arguments, **named)

    return call


def _patiently(receive: Callable[..., Any]) -> Callable[..., Any]:
    """Wait for messages without keeping others from sending some."""

    def call(backend: Any, queue: str, count: int, wait_s: int, *rest: Any) -> Any:
        until_s = time.monotonic() + wait_s
        while True:
            found = receive(backend, queue, count, 0, *rest)
            if found or time.monotonic() >= until_s:
                return found
            time.sleep(_POLL_S)

    return call


if __name__ == "__main__":
    main()
