"""The loop around a source that fails when the test says."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from blocks.errors import UnreachableError
from deployments.services.listeners.listener import Listener, Pace
from deployments.services.listeners.metrics import ListenerMetrics
from deployments.services.listeners.status import SourceStatus
from tasks.core.connectors.messages.decoding import AnyBytes
from tasks.core.connectors.messages.message import Message
from tasks.core.intake.inbox.new_delivery import StoredDelivery
from tasks.core.intake.messages.reading import MessageReader, MessageReading


class Source:
    """Gives its messages once, and cannot be told to wait."""

    system = "queue"
    reads_ahead = False

    def __init__(self, *bodies):
        self.messages = [Message("orders", body, None) for body in bodies]
        self.failed = asyncio.Event()

    async def open(self):
        if self.failed.is_set():
            await asyncio.Event().wait()

    async def receive(self, limit, *, wait_s):
        taken, self.messages = self.messages, []
        return taken

    async def hold(self, messages):
        self.failed.set()
        raise UnreachableError("the connection is cut", system="queue", operation="hold")

    async def lag(self):
        return None

    async def close(self):
        pass


@pytest.mark.parametrize("ends", ["late", "never"])
async def test_what_is_stored_when_the_source_fails_is_notified_of(ends):
    """It comes again as a duplicate, for which nobody notifies: so that is done at once."""
    large = b"x" * 9 * 1024 * 1024  # so that one call does not take both
    source = Source(large, *([large] if ends == "never" else []))
    calls, notified = [], asyncio.Queue()

    async def store(deliveries):
        calls.append(len(deliveries))
        if ends == "late":
            await source.failed.wait()
        elif len(calls) > 1:
            await asyncio.Event().wait()
        return [StoredDelivery(each.dedup_key, is_new=True) for each in deliveries]

    reading = MessageReading(
        integration="orders", endpoint="queue", decoder=AnyBytes(), max_body_bytes=len(large)
    )
    listener = Listener(
        source,
        MessageReader(reading),
        store=store,
        notify=notified.put_nowait,
        status=SourceStatus("queue", "orders", source.system, ListenerMetrics()),
        pace=Pace(hold_every_s=0.02, first_wait_s=0.01),
    )
    running = asyncio.create_task(listener.run())
    assert await asyncio.wait_for(notified.get(), 5) == "orders"
    assert calls == ([1] if ends == "late" else [1, 1])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class SwallowingSource:
    """Its calls wait, and one swallows being cancelled, as client libraries now and then do.

    Args:
        call: Which.
    """

    system = "queue"
    reads_ahead = True

    def __init__(self, call):
        self._call = call
        self.asked = asyncio.Event()

    async def open(self):
        await self._answer("open")

    async def receive(self, limit, *, wait_s):
        await self._answer("receive")
        return [Message("orders", b"{}", None)]

    async def acknowledge(self, messages):
        await self._answer("acknowledge")

    async def hold(self, messages):
        await self._answer("hold")

    async def lag(self):
        await self._answer("lag")

    async def close(self):
        await self._answer("close")

    async def _answer(self, call):
        await asyncio.sleep(0)
        if call == self._call and not self.asked.is_set():
            self.asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()


@pytest.mark.parametrize("call", ["open", "lag", "receive", "hold", "acknowledge", "close"])
async def test_a_listener_ends_though_its_source_swallowed_its_cancellation(call):
    """One cancellation is enough, whichever call of the source swallows it."""
    source = SwallowingSource(call)

    async def store(deliveries):
        if call == "hold":
            await asyncio.Event().wait()
        if call == "close":
            raise RuntimeError("so that the source is closed")
        return [StoredDelivery(each.dedup_key, is_new=True) for each in deliveries]

    reading = MessageReading(integration="orders", endpoint="queue", decoder=AnyBytes())
    listener = Listener(
        source,
        MessageReader(reading),
        store=store,
        notify=lambda _integration: None,
        status=SourceStatus("queue", "orders", source.system, ListenerMetrics()),
        pace=Pace(hold_every_s=0.02, first_wait_s=3600, max_wait_s=3600),
    )
    running = asyncio.create_task(listener.run())
    await source.asked.wait()
    running.cancel()
    await asyncio.wait({running}, timeout=60)
    assert running.cancelled()
