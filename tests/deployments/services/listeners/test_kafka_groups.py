"""Members of a Kafka group come and go, and every message is in the inbox once."""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pytest

from sandbox.systems.message_brokers import Kafka

KEYS = tuple(f"key-{n}" for n in range(16))


@pytest.fixture
async def topic(kafka):
    """An empty topic with four partitions."""
    topic = Kafka(kafka)
    await topic.create()
    return topic


async def publish(topic, first, last):
    """One message a key for each of these numbers, in turn."""
    from confluent_kafka import Producer

    def publish():
        producer = Producer({"bootstrap.servers": topic.cluster.bootstrap_servers})
        for number in range(first, last):
            for key in KEYS:
                producer.produce(topic.name, json.dumps({"key": key, "n": number}), key=key)
        assert producer.flush(30) == 0

    await asyncio.to_thread(publish)


def numbers_of(inbox, key):
    found = [json.loads(body) for body in inbox.bodies()]
    return [each["n"] for each in found if each["key"] == key]


async def test_a_rebalance_between_live_members_loses_and_doubles_nothing(
    topic, listening, inbox, eventually
):
    """A second member joins and the first leaves while messages flow; both take their share."""
    fields = topic.declaration("", 0) | {"batch": 20}
    async with listening(fields) as first:
        await publish(topic, 0, 10)
        await eventually(inbox.count, 160)
        async with listening(fields) as second:
            [joined] = second.statuses
            [stayed] = first.statuses
            number = 10
            for _ in range(100):
                await publish(topic, number, number + 1)
                number += 1
                await asyncio.sleep(0.1)
                if joined.counts["new"] >= 16:
                    break
            before = stayed.counts["new"]
            await publish(topic, number, number + 5)
            number += 5
            await eventually(inbox.count, number * 16, timeout_s=40)
            assert joined.counts["new"] >= 16
            assert stayed.counts["new"] > before or joined.counts["new"] > 16
        await publish(topic, number, number + 5)
        await eventually(inbox.count, (number + 5) * 16, timeout_s=40)
    for key in KEYS:
        assert sorted(numbers_of(inbox, key)) == list(range(number + 5))


async def test_a_member_that_dies_is_followed_by_the_others(topic, listening, inbox, eventually):
    """What a dead member had taken and not acknowledged is taken by the one that is left."""
    fields = topic.declaration("", 0) | {"batch": 20}
    async with listening(fields):
        await publish(topic, 0, 5)
        await eventually(inbox.count, 80)
        async with listening(fields, crash=True) as second:
            [joined] = second.statuses
            number = 5
            for _ in range(100):
                await publish(topic, number, number + 1)
                number += 1
                await asyncio.sleep(0.1)
                if joined.counts["new"]:
                    break
            assert joined.counts["new"]
            lock = sqlite3.connect(inbox.engine.url.database, isolation_level=None, timeout=30)
            lock.execute("BEGIN IMMEDIATE")
            await publish(topic, number, number + 10)
            number += 10
            await eventually(lambda: joined.state, "waiting for the inbox")
        lock.close()  # it died with messages that it had taken and not stored
        await eventually(inbox.count, number * 16, timeout_s=40)
    for key in KEYS:
        assert sorted(numbers_of(inbox, key)) == list(range(number))


async def test_messages_of_a_key_are_in_order(topic, listening, inbox, eventually):
    """The key is the ordering key, and its deliveries are in the order of its partition."""
    await publish(topic, 0, 20)
    async with listening(topic.declaration("", 0)):
        await eventually(inbox.count, 320)
    for key in KEYS:
        assert numbers_of(inbox, key) == list(range(20))
    assert {row.ordering_key for row in inbox.rows()} == {f"{topic.name}:{key}" for key in KEYS}
