"""Messages per second into the inbox, against a bare consumer that only counts.

The processor time is that of this process: the one that commits is not in it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.harness.databases import new_database, postgresql_url
from deployments.services.listeners.declarations import read_declarations
from deployments.services.listeners.listener import Pace
from deployments.services.listeners.service import Listeners
from sandbox.systems import kafka_cluster
from sandbox.systems.message_brokers import Broker, Kafka, Mqtt, Nats, RabbitMq, Redis
from tasks.core.state.database import open_database

COUNT = 20_000
_LOOK_EVERY_S = 0.02


def messages() -> list[bytes]:
    return [json.dumps({"id": n, "note": "x" * 300}).encode() for n in range(COUNT)]


async def count_rabbitmq(broker: RabbitMq) -> None:
    connection = await broker.connect()
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=1000)
    queue = await channel.get_queue(broker.name)
    seen = 0
    async with queue.iterator() as messages:
        async for message in messages:
            await message.ack()
            seen += 1
            if seen == COUNT:
                break
    await connection.close()


async def count_nats(broker: Nats) -> None:
    client = await broker.connect()
    subscription = await client.jetstream().pull_subscribe("", "bare", stream=broker.name)
    seen = 0
    while seen < COUNT:
        found = await subscription.fetch(500)
        for message in found:
            await message.ack()
        seen += len(found)
    await client.flush()
    await client.close()


async def count_redis(broker: Redis) -> None:
    async with broker.connect() as client:
        await client.xgroup_create(broker.name, "bare", id="0")
        seen = 0
        while seen < COUNT:
            found = await client.xreadgroup("bare", "me", {broker.name: ">"}, count=500)
            entries = found[broker.name.encode()][0] if isinstance(found, dict) else found[0][1]
            await client.xack(broker.name, "bare", *(entry[0] for entry in entries))
            seen += len(entries)


async def count_kafka(broker: Kafka) -> float:
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": broker.cluster.bootstrap_servers,
            "group.id": "bare",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([broker.name])
    seen, begun = 0, 0.0
    while seen < COUNT:
        message = consumer.poll(1)
        if message is None:
            continue
        begun = begun or time.perf_counter()  # joining the group takes seconds for both
        seen += 1
        if seen % 500 == 0:
            consumer.commit(asynchronous=False)
    took = time.perf_counter() - begun
    consumer.close()
    return took


async def count_mqtt(broker: Mqtt) -> None:
    source = broker.source()
    await source.open()
    seen = 0
    while seen < COUNT:
        found = await source.receive(500, wait_s=5)
        await source.acknowledge(found)
        seen += len(found)
    await source.close()


BARE: dict[str, Callable[[Any], Awaitable[float | None]]] = {
    "rabbitmq": count_rabbitmq,
    "nats": count_nats,
    "redis": count_redis,
    "kafka": count_kafka,
    "mqtt": count_mqtt,
}


@contextmanager
def inbox_url(directory: str) -> Iterator[str]:
    """An empty inbox: in a file, or with --postgresql in a database of its own."""
    if "--postgresql" not in sys.argv:
        yield f"sqlite:///{directory}/state.db"
        return
    with new_database() as name:
        yield postgresql_url(name)


async def listen(broker: Broker) -> float:
    fields = broker.declaration(*(broker.address or ("", 0)))
    with tempfile.TemporaryDirectory() as directory, inbox_url(directory) as url:
        file = Path(directory) / "sources.yaml"
        file.write_text(yaml.safe_dump({"integration": "bench", "sources": {"bench": fields}}))
        engine = open_database(url)
        listeners = Listeners(
            engine,
            read_declarations([file], {}),
            notify=lambda _: None,
            pace=Pace(poll_s=0.5),
        )
        until = asyncio.Event()
        running = asyncio.create_task(listeners.run(until))
        [status] = listeners.statuses
        begun = time.perf_counter()
        while not (broker.kind != "kafka" or status.counts["new"]):
            await asyncio.sleep(_LOOK_EVERY_S)
            begun = time.perf_counter()
        already = status.counts["new"]
        while status.counts.total() < COUNT:  # noqa: ASYNC110 - the status is only looked at
            await asyncio.sleep(_LOOK_EVERY_S)
        took = (time.perf_counter() - begun) * COUNT / max(1, COUNT - already)
        until.set()
        await running
        engine.dispose()
    return took


async def compare(kind: str) -> None:
    with kafka_cluster.start() as cluster:
        made: dict[str, Callable[[], Broker]] = {
            "rabbitmq": RabbitMq,
            "nats": Nats,
            "redis": Redis,
            "mqtt": Mqtt,
            "kafka": lambda: Kafka(cluster),
        }
        rates, cpu_us = [], []
        for consume in (BARE[kind], listen):
            broker = made[kind]()
            await broker.create()
            try:
                await broker.publish(messages())
                begun, used = time.perf_counter(), time.process_time()
                took = await consume(broker)
                rates.append(COUNT / (took or time.perf_counter() - begun))
                cpu_us.append((time.process_time() - used) / COUNT * 1e6)
            finally:
                await broker.remove()
    bare, listener = rates
    print(
        f"{kind:9} bare {bare:8,.0f}/s   listener {listener:8,.0f}/s   "
        f"ratio {listener / bare:.2f}   CPU per message: bare {cpu_us[0]:.0f} us, "
        f"listener {cpu_us[1]:.0f} us, ratio {cpu_us[0] / cpu_us[1]:.2f}",
        flush=True,
    )


def warm_up() -> None:
    """Load what migrates a new inbox: else it counts for the listener of the first kind."""
    with tempfile.TemporaryDirectory() as directory:
        open_database(f"sqlite:///{directory}/state.db").dispose()


if __name__ == "__main__":
    warm_up()
    kinds = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    for each in kinds or ("rabbitmq", "nats", "redis", "kafka"):
        asyncio.run(compare(each))
