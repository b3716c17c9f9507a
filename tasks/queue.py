"""Scheduled imports from queues: take what waits, import it, acknowledge it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from prefect import State, task
from prefect.blocks.core import Block
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from pydantic import BaseModel, TypeAdapter, ValidationError

from blocks.http_api import HttpApi
from blocks.rabbitmq_broker import RabbitMqBroker
from blocks.redis_server import RedisServer
from blocks.sqs_queue import SqsQueue as SqsQueueBlock
from tasks.api import open_api
from tasks.outcomes import failed
from tasks.plain.http.client import ApiClient
from tasks.plain.inbox.writer import InboxWriter
from tasks.plain.message_sources.decoding import AnyBytes
from tasks.plain.message_sources.message import Message, MessageSource
from tasks.plain.message_sources.rabbitmq import RabbitMqQueue
from tasks.plain.message_sources.reading import MessageReader, MessageReading
from tasks.plain.message_sources.redis_streams import RedisStream
from tasks.plain.message_sources.sqs import SqsQueue
from tasks.plain.message_sources.waiting_messages import Taken, take_waiting
from tasks.plain.state.database import open_database

QUEUE_BLOCKS = (SqsQueueBlock, RabbitMqBroker, RedisServer)


def open_queue(block: Block, *, name: str = "", group: str = "imports") -> MessageSource:
    """The queue that a block leads to, not yet connected.

    Args:
        block: Of `QUEUE_BLOCKS`.
        name: The queue on a RabbitMQ broker, or the stream on a Redis server.
        group: The consumer group of a Redis stream.
    """
    match block:
        case SqsQueueBlock():
            return SqsQueue(block.get_client, system=block.system, queue_url=block.queue_url)
        case RabbitMqBroker():
            # no more than what is worked on is sent ahead: the rest stays in the queue
            return RabbitMqQueue(block.get_client, system=block.system, queue=name, prefetch=100)
        case RedisServer():
            return RedisStream(
                block.get_client, system=block.system, stream=name, group=group, consumer="import"
            )
    raise TypeError(f"{type(block).__name__} leads to no queue")


@task(task_run_name="import what waits in {source.system}", cache_policy=NO_CACHE)
async def import_waiting_messages(
    source: MessageSource,
    application: HttpApi,
    *,
    integration: str,
    resource: str,
    model: type[BaseModel],
    limit: int = 1000,
    batch_size: int = 100,
) -> State[Taken]:
    """Import the JSON records that wait in a queue, and acknowledge them when they are in.

    A message that is no such record, or that the application refuses, is kept in the inbox as
    parked, where it is seen and can be looked at; the others go on. The run then fails.

    Args:
        source: From `open_queue`.
        application: Takes the records, as `POST <resource>/batch`.
        integration: In whose name bad messages are parked.
        resource: What the records are there, e.g. "orders".
        model: What a record must be.
        limit: Messages a run at most.
        batch_size: Records a request.

    Raises:
        TransientError: The queue or the application is out of reach; what was not imported is
            back in the queue.
    """
    engine = await asyncio.to_thread(open_database)
    writer = InboxWriter(engine)
    reader = MessageReader(
        MessageReading(integration=integration, endpoint=source.system, decoder=AnyBytes())
    )
    adapter: TypeAdapter[Any] = TypeAdapter(model)

    async def park(message: Message, reason: str) -> None:
        defective = message._replace(defect=reason)
        await writer.store([await reader.delivery(defective, received_at=datetime.now(UTC))])

    with open_api(application) as api:

        async def sink(messages: Sequence[Message]) -> Mapping[int, str]:
            return await asyncio.to_thread(_send, api, resource, adapter, messages)

        await writer.start()
        try:
            taken = await take_waiting(source, sink, park, limit=limit, batch=batch_size)
        finally:
            await writer.close()
            await asyncio.to_thread(engine.dispose)
    told = f"{taken.imported} messages imported, {taken.parked} parked"
    if taken.parked:
        return failed(f"{told}: {'; '.join(taken.reasons or ())}", data=taken)
    return Completed(message=told, data=taken)


def _send(
    api: ApiClient, resource: str, adapter: TypeAdapter[Any], messages: Sequence[Message]
) -> Mapping[int, str]:
    """Send those that are valid; one refusal of the application refuses only its record."""
    bad: dict[int, str] = {}
    good: dict[int, Any] = {}
    for position, message in enumerate(messages):
        try:
            good[position] = adapter.validate_json(message.content or message.body)
        except ValidationError as exc:
            bad[position] = _told(exc)
    while good:
        refused = _send_batch(api, resource, adapter, messages, good)
        if not refused:
            break
        for position, reason in refused.items():
            bad[position] = reason
            del good[position]
    return bad


def _send_batch(
    api: ApiClient,
    resource: str,
    adapter: TypeAdapter[Any],
    messages: Sequence[Message],
    good: Mapping[int, Any],
) -> dict[int, str]:
    from blocks.errors import UpstreamRejectedError

    records = [adapter.dump_python(item, mode="json") for item in good.values()]
    positions = list(good)
    try:
        api.call(
            "POST",
            f"{resource}/batch",
            json={"records": records},
            idempotency_key=_key([messages[position] for position in positions]),
            operation=f"import {resource}",
        )
    except UpstreamRejectedError as error:
        named = {
            positions[detail["index"]]: f"refused: {detail.get('reason', '')}"
            for detail in error.details
            if isinstance(detail.get("index"), int) and 0 <= detail["index"] < len(positions)
        }
        if not named:
            raise
        return named
    return {}


def _key(messages: Sequence[Message]) -> str:
    """The same for the same messages, which come again when they were not acknowledged."""
    import hashlib

    parts = [message.identity or message.body.hex() for message in messages]
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:40]


def _told(exc: ValidationError) -> str:
    fault = exc.errors(include_input=False, include_url=False, include_context=False)[0]
    return f"{'.'.join(map(str, fault['loc'])) or 'message'}: {fault['msg']}"
