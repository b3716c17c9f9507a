"""The line between those who store deliveries and the one who commits them: a socket.

The committing end runs in a process of its own, where it shares no interpreter lock with the
event loop that takes requests in, or in a thread, which costs nothing to start.

Group commit: while one transaction is being flushed to disk the next calls queue up and then share
a transaction, so durability costs one flush per group and not one per delivery.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import pickle
import select
import signal
import socket
import threading
import traceback
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

from blocks.errors import IntegrationError, PermanentError
from tasks.core.intake.inbox.committer import CommitResult, Committer
from tasks.core.intake.inbox.new_delivery import NewDelivery
from tasks.core.intake.inbox.reply_tables import AWAITED_REQUESTS
from tasks.core.state.database import open_database

_LOG = logging.getLogger(__name__)
_HEAD_BYTES = 8  # before each message: its length
_READ_BYTES = 1024 * 1024  # more than a socket holds
_STDIN = 0
_STORED_BESIDE = {AWAITED_REQUESTS.name: AWAITED_REQUESTS}
_GC_THRESHOLD = 50_000
_FIELDS = tuple(name for name in NewDelivery.__slots__ if name != "beside")
_fields = attrgetter(*_FIELDS)


def main() -> None:
    """Commit what comes in by standard input, a socket, until its other end is closed."""
    # Whoever holds the other end is told to stop as well, and decides when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    line = socket.socket(fileno=_STDIN)
    threading.Thread(target=_end_with_other_end, args=(_STDIN,), daemon=True).start()
    settings = next((each for each in _received(line) if each), None)
    if settings is None:
        return
    [(url, busy_timeout_s)] = settings
    try:
        engine = open_database(url)
    except IntegrationError as error:
        line.sendall(message(error))
        return
    # What is loaded by now stays, and deliveries leave no cycles behind; only errors do.
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    serve(line, Committer(engine, busy_timeout_s=busy_timeout_s))


def serve(line: socket.socket, committer: Committer) -> None:
    """Commit the calls that come in, in lists, until the other end is closed.

    The first answer says whether the database is there: None, or the error. Then come lists of
    outcomes, one for each call and in their order.
    """
    with line, contextlib.suppress(ConnectionError):  # nobody waits for the answer any more
        try:
            committer.connect()
        except Exception as error:  # noqa: BLE001 - raised where the writer is started
            line.sendall(message(_portable(error)))
            return
        line.sendall(message(None))
        for contents in _received(line):
            if calls := [_unpacked(call) for sent in contents for call in sent]:
                outcomes = committer.commit(calls)
                line.sendall(message([_portable(each) for each in outcomes]))
        committer.close()


def _end_with_other_end(line: int) -> None:
    """End this process when nobody waits for an answer any more, whatever the database does."""
    poll = select.poll()
    poll.register(line, 0)  # 0: only that the other end is gone, not that it has no more to say
    poll.poll()
    os._exit(1)


def _received(line: socket.socket) -> Iterator[list[Any]]:
    """After each read the messages that are whole by then, until the other end is closed."""
    buffer = bytearray()
    while data := line.recv(_READ_BYTES):
        buffer += data
        yield take_messages(buffer)


def message(content: Any) -> bytes:
    """The content as it goes over the line."""
    data = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    return len(data).to_bytes(_HEAD_BYTES) + data


def take_messages(buffer: bytearray) -> list[Any]:
    """Remove the messages that have arrived whole; returns their contents."""
    found = []
    start = 0
    with memoryview(buffer) as view:
        while len(buffer) >= (begin := start + _HEAD_BYTES):
            end = begin + int.from_bytes(view[start:begin])
            if len(buffer) < end:
                break
            found.append(pickle.loads(view[begin:end]))  # noqa: S301 - our own, over a private socket
            start = end
    del buffer[:start]
    return found


def packed(call: Sequence[NewDelivery]) -> list[Any]:
    """A call as it goes over the line, where plain tuples are the cheapest."""
    return [
        (*_fields(each), each.beside and (each.beside[0].name, each.beside[1])) for each in call
    ]


def _unpacked(call: Sequence[Any]) -> list[NewDelivery]:
    deliveries = [NewDelivery(*fields) for fields in call]
    for each in deliveries:
        if each.beside is not None:
            name, row = each.beside
            each.beside = _STORED_BESIDE[str(name)], row
    return deliveries


def _portable(outcome: CommitResult) -> CommitResult:
    if isinstance(outcome, list | IntegrationError):
        return outcome
    # Foreign exceptions may not cross, and their texts may quote what was to be stored.
    place = "".join(traceback.format_tb(outcome.__traceback__))
    kind = type(outcome).__name__
    _LOG.error("a delivery could not be stored (%s)\n%s", kind, place)
    return PermanentError(f"{kind}; the log says where", system="inbox", operation="store")


if __name__ == "__main__":
    main()
