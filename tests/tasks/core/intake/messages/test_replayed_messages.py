"""Dead-lettered messages that were replayed, taken as if they still waited in their queue."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import pytest

from blocks.errors import UpstreamFailedError
from tasks.core.connectors.messages.decoding import AnyBytes
from tasks.core.connectors.messages.message import Message
from tasks.core.intake.inbox.operations import DeliveryFilter, InboxOperations
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.store import Inbox
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.intake.messages.reading import MessageReader, MessageReading
from tasks.core.intake.messages.replayed_messages import ReplayedMessages
from tasks.core.state.database import open_database
from tasks.core.sync.record_import.queue_messages import take_waiting

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class DeadLettered:
    """An inbox with dead-lettered messages of queues, and a clock that the test turns."""

    def __init__(self, engine) -> None:
        self.now = NOW
        self.engine = engine
        self.inbox = Inbox(engine, clock=lambda: self.now)
        self.operations = InboxOperations(engine, clock=lambda: self.now)

    async def dead_letter(self, *messages, queue="queue-a"):
        """Store messages of a queue as dead-lettered."""
        writer = InboxWriter(self.engine)
        await writer.start()
        reader = MessageReader(
            MessageReading(integration="imports", endpoint=queue, decoder=AnyBytes())
        )
        for message in messages:
            delivery = await reader.delivery(message._replace(defect="bad"), received_at=NOW)
            await writer.store([delivery])
        await writer.close()

    def replay(self):
        self.operations.replay(DeliveryFilter(statuses=("dead_letter",)), dry_run=False)

    def source(self, run="run-1", queue="queue-a"):
        return ReplayedMessages(
            self.inbox, LeaseOwner(run, lease_s=60), integration="imports", endpoint=queue
        )

    def statuses(self):
        return [each.status for each in self.operations.select(DeliveryFilter())]


@pytest.fixture
def dead_lettered(migrated_sqlite, tmp_path):
    engine = open_database(f"sqlite:///{shutil.copy(migrated_sqlite, tmp_path / 'state.db')}")
    made = DeadLettered(engine)
    yield made
    made.inbox.close()


def message(name, **fields):
    return Message("orders", name.encode(), None, identity=name, **fields)


class Taking:
    """A sink that remembers, and says of some messages that they are bad."""

    def __init__(self, **bad) -> None:
        self.bodies = []
        self.messages = []
        self.bad = bad

    async def __call__(self, messages):
        names = [(each.content or each.body).decode() for each in messages]
        self.bodies += names
        self.messages += messages
        return {n: self.bad[name] for n, name in enumerate(names) if name in self.bad}


async def test_only_what_was_replayed_of_this_queue_is_taken(dead_lettered):
    """What is still dead-lettered, and what came from another queue, is left alone."""
    await dead_lettered.dead_letter(message("a"))
    await dead_lettered.dead_letter(message("elsewhere"), queue="queue-b")
    dead_lettered.replay()
    await dead_lettered.dead_letter(message("b"))
    sink, source = Taking(), dead_lettered.source()
    taken = await take_waiting(source, sink, source.dead_letter, limit=10)
    assert (taken.imported, sink.bodies, taken.is_all) == (1, ["a"], True)
    assert dead_lettered.statuses() == ["done", "received", "dead_letter"]


async def test_what_is_still_bad_is_dead_lettered_again(dead_lettered):
    """With the new reason; what is good in the same batch is done."""
    await dead_lettered.dead_letter(message("a"), message("b"))
    dead_lettered.replay()
    sink, source = Taking(b="still bad"), dead_lettered.source()
    taken = await take_waiting(source, sink, source.dead_letter, limit=10)
    assert (taken.imported, taken.bad, taken.reasons) == (1, 1, ["still bad"])
    assert [each.reason for each in dead_lettered.operations.select(DeliveryFilter())][
        1
    ] == "still bad"
    assert dead_lettered.statuses() == ["done", "dead_letter"]


async def test_what_was_not_imported_is_back_for_the_next_run(dead_lettered):
    """An application that fails costs neither the message nor one of its attempts."""
    await dead_lettered.dead_letter(message("a"))
    dead_lettered.replay()

    async def sink(_messages):
        raise UpstreamFailedError("away", system="app", operation="send")

    for run in ("run-1", "run-2"):
        source = dead_lettered.source(run)
        with pytest.raises(UpstreamFailedError):
            await take_waiting(source, sink, source.dead_letter, limit=10)
    [again] = await dead_lettered.source("run-3").receive(10, wait_s=0)
    assert again.receipt.attempt == 1


async def test_a_message_comes_back_as_it_was(dead_lettered):
    """With its headers, and with what its source had unwrapped."""
    await dead_lettered.dead_letter(
        message("envelope", content=b"inside", headers=[("name", "x.csv")])
    )
    dead_lettered.replay()
    [again] = await dead_lettered.source().receive(10, wait_s=0)
    assert (again.body, again.content) == (b"envelope", b"inside")
    assert list(again.headers) == [("name", "x.csv")]


async def test_two_runs_never_have_the_same(dead_lettered):
    """While one works the lease is extended; when its process dies another takes over."""
    await dead_lettered.dead_letter(message("a"))
    dead_lettered.replay()
    first, second = dead_lettered.source("run-1"), dead_lettered.source("run-2")
    held = await first.receive(10, wait_s=0)
    dead_lettered.now += timedelta(seconds=40)
    await first.hold(held)
    dead_lettered.now += timedelta(seconds=40)
    assert await second.receive(10, wait_s=0) == []
    dead_lettered.now += timedelta(seconds=21)
    assert [each.body for each in await second.receive(10, wait_s=0)] == [b"a"]


async def test_what_kills_each_run_is_dead_lettered_in_the_end(dead_lettered):
    """After its attempts it is taken by nobody any more."""
    await dead_lettered.dead_letter(message("a"))
    dead_lettered.replay()
    taken = 0
    while await dead_lettered.source(f"run-{taken}").receive(10, wait_s=0):
        taken += 1
        dead_lettered.now += timedelta(seconds=61)
    assert taken == 8
    assert dead_lettered.statuses() == ["dead_letter"]
