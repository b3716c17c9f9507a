"""Every kind of source can be stopped, whatever its broker does: nothing, above all."""

from __future__ import annotations

import asyncio
import json

import pytest

from deployments.services.listeners.listener import Pace
from tasks.core.sync.record_import.queue_messages import take_waiting

KINDS = ("rabbitmq", "nats", "redis", "mqtt", "kafka", "sqs", "imap")
every_kind = pytest.mark.parametrize("broker", KINDS, indirect=True)
IMPATIENT = Pace(poll_s=0.1, lag_every_s=0.2, finish_s=0.5)


def orders(count, *, start=0):
    return [json.dumps({"id": f"O-{n}"}).encode() for n in range(start, start + count)]


async def is_left(line, broker, eventually):
    """The connection is closed on our side."""
    if broker.kind != "sqs":  # whose client reads on until its own time is over
        await eventually(line.is_used, False)


@every_kind
@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "cancelled"])
async def test_a_source_that_fell_silent_is_left(broker, line, crash, listening, inbox, eventually):
    """A source that answers nothing any more keeps no listener from its end."""
    await broker.publish(orders(3))
    async with listening(line.fields, crash=crash, pace=IMPATIENT) as listeners:
        [status] = listeners.statuses
        await eventually(lambda: status.counts["new"], 3)
        line.set_silent(silent=True)
    await is_left(line, broker, eventually)


@every_kind
@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "cancelled"])
async def test_a_side_that_takes_the_connection_and_says_nothing_is_left(
    broker, line, crash, listening, eventually
):
    """A listener that still connects ends as well."""
    line.set_silent(silent=True)
    async with listening(line.fields, crash=crash, pace=IMPATIENT):
        await eventually(line.is_used, True)
    await is_left(line, broker, eventually)


@every_kind
async def test_a_source_is_cancelled_while_it_listens(broker, line, listening, inbox, eventually):
    """A listener that is cancelled in the middle of its work ends, and closes its connection."""
    await broker.publish(orders(3))
    async with listening(line.fields, crash=True):
        await eventually(inbox.count, 3)
    await is_left(line, broker, eventually)


@pytest.mark.parametrize("broker", ["rabbitmq", "redis", "sqs"], indirect=True)
async def test_a_queue_import_is_cancelled_while_its_queue_is_silent(
    broker, line, declare, eventually
):
    """An import that is cancelled ends though its messages cannot be given back."""
    await broker.publish(orders(3))
    [declared] = declare(orders=line.fields)
    importing = asyncio.Event()

    async def sink(_messages):
        line.set_silent(silent=True)
        importing.set()
        await asyncio.Event().wait()

    async def dead_letter(_message, _reason):
        raise AssertionError("there is no bad one")

    source = declared.declaration.make_source("orders")
    running = asyncio.create_task(
        take_waiting(source, sink, dead_letter, limit=10, hold_every_s=0.1)
    )
    await importing.wait()
    running.cancel()
    await asyncio.wait({running}, timeout=60)
    assert running.cancelled()
    await is_left(line, broker, eventually)
