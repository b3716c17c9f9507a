"""Callers are woken by notices where there are any, by looking where there are none."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from deployments.services.gateway.waiters import Waiters, WaitingRoom
from tasks.core.intake.inbox.new_delivery import NewDelivery, delivery_id
from tasks.core.intake.inbox.reply import Reply
from tasks.core.intake.inbox.reply_tables import AWAITED_REQUESTS
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.settlement import Settlement
from tasks.core.intake.inbox.store import Inbox
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.intake.request_reply.requests import request_row


async def ask(engine, request_id):
    """Store one request."""
    now = datetime.now(UTC)
    row = request_row(
        id=request_id,
        delivery_id=delivery_id("quotes", request_id),
        endpoint="quotes",
        digest="",
        keep_s=60,
        received_at=now,
        callback=None,
        callback_wanted=False,
    )
    writer = InboxWriter(engine)
    await writer.start()
    await writer.store(
        [
            NewDelivery(
                integration="quotes",
                endpoint="quotes",
                event="",
                dedup_key=request_id,
                ordering_key=None,
                headers=b"[]",
                body=b"",
                payload=None,
                content_type="",
                received_at=now,
                beside=(AWAITED_REQUESTS, row),
            )
        ]
    )
    await writer.close()


def reply(engine):
    """Settle all requests, as a flow in another process does."""
    inbox = Inbox(engine)
    for delivery in inbox.lease("quotes", LeaseOwner("run"), limit=10):
        inbox.settle([Settlement(delivery, "done", reply=Reply.json(1))])
    inbox.close()


@pytest.fixture
async def waiters(state_database):
    """Waiters that look once an hour where notices wake them."""
    waiters = Waiters(state_database, poll_s=0.01, poll_beside_notices_s=3600)
    await waiters.start()
    if state_database.dialect.name == "postgresql":
        while not waiters._is_listening:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    yield waiters
    await waiters.close()


async def test_whoever_waits_is_woken_and_nobody_else(state_database, waiters):
    """All callers of a request that has ended are woken at once; those of another wait on."""
    await ask(state_database, "a")
    with (
        waiters.waiting_for("a") as first,
        waiters.waiting_for("a") as second,
        waiters.waiting_for("b") as other,
    ):
        await asyncio.to_thread(reply, state_database)
        await asyncio.wait_for(asyncio.gather(first, second), 30)
        assert not other.done()


async def test_whoever_has_left_is_forgotten(state_database, waiters):
    """Nothing is held for callers that wait no more, and later ones are woken all the same."""
    with waiters.waiting_for("a"):
        pass
    assert waiters._waiting == {}
    await ask(state_database, "b")
    with waiters.waiting_for("b") as ended:
        await asyncio.to_thread(reply, state_database)
        await asyncio.wait_for(ended, 30)


def test_places_are_counted_per_endpoint_and_per_caller():
    """Who leaves makes room; other endpoints have places of their own."""
    room = WaitingRoom()
    limits = {"max_waiting": 3, "max_per_caller": 2}
    leave = room.enter("a", "ann", **limits)
    assert room.enter("a", "ann", **limits)
    assert room.enter("a", "ann", **limits) is None
    assert room.enter("b", "ann", **limits)
    assert room.enter("a", "bob", **limits)
    assert room.enter("a", "cid", **limits) is None
    leave()
    assert room.enter("a", "cid", **limits)
