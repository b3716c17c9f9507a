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
import pickle
import signal
import socket
import traceback
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import tasks.plain.synchronous.tables  # noqa: F401 - rows of it are stored beside deliveries
from blocks.errors import IntegrationError, PermanentError
from tasks.plain.inbox.committing import Committer, Outcome
from tasks.plain.inbox.new_delivery import NewDelivery, StoredDelivery
from tasks.plain.state.database import open_database
from tasks.plain.state.tables import METADATA

_LOG = logging.getLogger(__name__)
_HEAD_BYTES = 8  # before each message: its length
_READ_BYTES = 1024 * 1024  # more than a socket holds
_STDIN = 0
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
    buffer = bytearray()
    while not (settings := take_messages(buffer)):
        if not (data := line.recv(_READ_BYTES)):
            return
        buffer += data
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
        buffer = bytearray()
        while data := line.recv(_READ_BYTES):
            buffer += data
            if calls := [_unpacked(call) for sent in take_messages(buffer) for call in sent]:
                line.sendall(message([_answer(each) for each in committer.commit(calls)]))
        committer.close()


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


def outcome(answer: list[tuple[str, bool]] | Exception) -> Outcome:
    """What came over the line as the outcome of a call."""
    if isinstance(answer, Exception):
        return answer
    return [StoredDelivery(id_, is_new) for id_, is_new in answer]


def _unpacked(call: Sequence[Any]) -> list[NewDelivery]:
    deliveries = [NewDelivery(*fields) for fields in call]
    for each in deliveries:
        if each.beside is not None:
            table, row = each.beside
            each.beside = METADATA.tables[str(table)], row
    return deliveries


def _answer(result: Outcome) -> list[tuple[str, bool]] | Exception:
    if isinstance(result, Exception):
        return _portable(result)
    return [(each.id, each.is_new) for each in result]


def _portable(error: Exception) -> Exception:
    if isinstance(error, IntegrationError):
        return error
    # Foreign exceptions may not cross, and their texts may quote what was to be stored.
    place = "".join(traceback.format_tb(error.__traceback__))
    kind = type(error).__name__
    _LOG.error("a delivery could not be stored (%s)\n%s", kind, place)
    return PermanentError(f"{kind}; the log says where", system="inbox", operation="store")


if __name__ == "__main__":
    main()
