"""Taking what waits, from a source that fails when the test says."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from blocks.errors import UnreachableError
from tasks.core.connectors.messages.message import Message
from tasks.core.sync.record_import.queue_messages import take_waiting


class Source:
    """Has one message after the other, and cannot be given any back."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.acknowledged = 0

    async def open(self):
        pass

    async def receive(self, limit, *, wait_s):
        return [Message("orders", b"{}", None)]

    async def acknowledge(self, messages):
        self.acknowledged += len(messages)

    async def give_back(self, messages):
        raise UnreachableError("no connection", system="queue", operation="give back")

    async def close(self):
        pass


class SwallowingSource(Source):
    """Swallows being cancelled once, as client libraries now and then do."""

    async def receive(self, limit, *, wait_s):
        if self.asked.is_set():
            await asyncio.Event().wait()
        self.asked.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return [Message("orders", b"{}", None)]


async def dead_letter(_message, _reason):
    raise AssertionError("there is no bad one")


async def test_why_the_sink_failed_is_told_though_nothing_can_be_given_back():
    """The sink's error is the import's; the messages come again, only later."""

    async def sink(_messages):
        raise UnreachableError("the application is away", system="application", operation="send")

    with pytest.raises(UnreachableError, match="the application is away"):
        await take_waiting(Source(), sink, dead_letter, limit=10)


async def test_a_cancelled_import_ends_though_nothing_can_be_given_back():
    """It is cancelled and not failed."""
    at_work = asyncio.Event()

    async def sink(_messages):
        at_work.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(take_waiting(Source(), sink, dead_letter, limit=10))
    await at_work.wait()
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()


async def test_a_cancelled_import_ends_though_its_source_swallows_that():
    """It takes nothing more after what it was just given."""
    source = SwallowingSource()

    async def sink(_messages):
        return {}

    running = asyncio.create_task(take_waiting(source, sink, dead_letter, limit=10))
    await source.asked.wait()
    running.cancel()
    await asyncio.wait({running}, timeout=60)
    assert running.cancelled()
    assert source.acknowledged <= 1
