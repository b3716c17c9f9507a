"""What every kind of source promises, proven against each of them."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack

import pytest
from sqlalchemy import make_url

from sandbox.systems import fault_proxy
from tasks.core.intake.inbox.operations import DeliveryFilter, InboxOperations
from tasks.core.state.database import open_database

KINDS = ("rabbitmq", "nats", "redis", "mqtt", "kafka", "sqs", "imap")
every_kind = pytest.mark.parametrize("broker", KINDS, indirect=True)


def orders(count, *, start=0):
    return [json.dumps({"id": f"O-{n}", "note": "x" * 50}).encode() for n in range(start, count)]


def count_for(broker, usual):
    """Mails and SQS calls cost more than messages: a few show the same."""
    return {"imap": 30, "sqs": 60}.get(broker.kind, usual)


def seen(inbox, broker):
    """The orders in the inbox, sorted; a mail's order is attached to it."""
    if broker.kind != "imap":
        return sorted(inbox.bodies())
    from tasks.core.connectors.messages.received_mail import read_mail

    return sorted(read_mail(body).attachments[0].content for body in inbox.bodies())


def direct(broker):
    return broker.declaration(*(broker.address or ("", 0)))


@every_kind
async def test_what_is_published_is_in_the_inbox_once_and_gone_from_the_source(
    broker, listening, inbox, eventually
):
    """Every message becomes one delivery, and a second listener finds none of them left."""
    sent = orders(count_for(broker, 300))
    await broker.publish(sent)
    notified = []
    async with listening(direct(broker), notified=notified):
        await eventually(inbox.count, len(sent))
    async with listening(direct(broker)) as again:
        await eventually(lambda: again.statuses[0].state, "listening")
        await asyncio.sleep(0.3)
        assert again.statuses[0].counts == {}
    assert seen(inbox, broker) == sorted(sent)
    assert set(notified) == {"stream_intake"}


@pytest.mark.parametrize("broker", ["imap"], indirect=True)
async def test_a_mail_that_is_not_moved_yet_is_not_taken_twice(
    broker, listening, inbox, eventually
):
    """While mails are stored no more are fetched: they would be the same."""
    sent = orders(30)
    await broker.publish(sent)
    async with listening({**direct(broker), "batch": 3}) as listeners:
        [status] = listeners.statuses
        await eventually(lambda: dict(status.counts), {"new": 30})


@every_kind
async def test_a_crash_between_store_and_acknowledgement_doubles_nothing(
    broker, listening, inbox, eventually
):
    """A listener that dies at any moment is followed by one that stores just what is missing."""
    sent = orders(count_for(broker, 300))
    await broker.publish(sent[: len(sent) // 2])
    async with listening(direct(broker), crash=True):
        await eventually(lambda: inbox.count() > 0, True)
    await broker.publish(sent[len(sent) // 2 :])
    async with listening(direct(broker)):
        await eventually(inbox.count, len(sent), timeout_s=40)
    assert seen(inbox, broker) == sorted(sent)


# the proxy's own tasks may be collected while they wait for a connection that was reset
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@every_kind
async def test_a_cut_connection_loses_nothing(broker, listening, inbox, eventually):
    """A connection that is cut in the middle is made anew, and every message arrives once."""
    sent = orders(count_for(broker, 300))
    with ExitStack() as stack:
        if broker.address is None:
            fields = direct(broker)
            cut, mend = (
                lambda: broker.cluster.set_down(down=True),
                lambda: broker.cluster.set_down(down=False),
            )
        else:
            proxy = stack.enter_context(fault_proxy.start(broker.address))
            fields = broker.declaration(proxy.host, proxy.port)

            def cut():
                proxy.cut_after_bytes, proxy.refuse = 0, True

            def mend():
                proxy.cut_after_bytes, proxy.refuse = None, False

        await broker.publish(sent[:20])
        async with listening(fields) as listeners:
            await eventually(lambda: inbox.count() > 0, True)
            cut()
            if broker.address is not None:
                await broker.publish(sent[20:])
            await eventually(lambda: listeners.statuses[0].state, "out of reach")
            mend()
            if broker.address is None:
                await broker.publish(sent[20:])
            await eventually(inbox.count, len(sent), timeout_s=40)
    assert seen(inbox, broker) == sorted(sent)


@every_kind
async def test_messages_nobody_can_read_are_dead_lettered_with_their_bytes(
    broker, listening, inbox, eventually
):
    """A message that is no JSON, or too large, is kept as dead-lettered; those behind it go on."""
    good = json.dumps({"id": "good"}).encode()
    large = json.dumps({"id": "large", "note": "x" * 5000}).encode()
    sent = [large, good] if broker.kind == "imap" else [b"no json {", large, good]
    await broker.publish(sent)
    async with listening({**direct(broker), "max_body_bytes": 3000}):
        await eventually(inbox.count, len(sent))
    rows = inbox.rows()
    assert sorted(row.status for row in rows) == ["dead_letter"] * (len(sent) - 1) + ["received"]
    reasons = " ".join(row.reason for row in rows if row.status == "dead_letter")
    assert "more than the 3000 allowed" in reasons
    if broker.kind != "imap":
        assert "not JSON" in reasons
        assert sorted(inbox.bodies()) == sorted(sent)


@every_kind
async def test_the_source_tells_how_many_wait(broker, listening, inbox, eventually):
    """The lag is known while the inbox takes nothing, of every source that can tell."""
    await broker.publish(orders(5))
    async with listening(direct(broker)) as listeners:
        await eventually(lambda: listeners.statuses[0].counts["new"], 5)
        expected = None if broker.kind == "mqtt" else 0
        await eventually(lambda: listeners.statuses[0].lag, expected)
        metrics = listeners.metrics.exposition().decode()
    assert 'listener_messages_total{outcome="new",source="orders"} 5.0' in metrics


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("broker", ["rabbitmq", "kafka", "sqs"], indirect=True)
async def test_while_the_database_is_away_nothing_is_lost_and_nothing_more_is_taken(
    broker, listening, eventually, postgresql_url
):
    """A database that is cut off makes the source wait; when it is back, all arrive once."""
    url = make_url(postgresql_url)
    sent = orders(60)
    with fault_proxy.start(("127.0.0.1", url.port or 5432)) as proxy:
        engine = open_database(
            url.set(host=proxy.host, port=proxy.port).render_as_string(hide_password=False)
        )
        beside = open_database(postgresql_url)
        view = InboxOperations(beside)
        mine = DeliveryFilter(endpoint="orders")

        def stored():
            return len(view.select(mine))

        before = stored()
        async with listening(direct(broker), engine=engine) as listeners:
            await broker.publish(sent[:10])
            await eventually(stored, before + 10)
            proxy.cut_after_bytes, proxy.refuse = 0, True
            await broker.publish(sent[10:])
            await eventually(lambda: listeners.statuses[0].state, "waiting for the inbox")
            await asyncio.sleep(1)  # longer than a hold, so that the source is told to wait
            assert stored() == before + 10
            proxy.cut_after_bytes, proxy.refuse = None, False
            await eventually(stored, before + 60)
        engine.dispose()
        beside.dispose()
    assert listeners.statuses[0].counts["new"] == 60
