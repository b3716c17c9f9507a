"""Import what waits in a queue into the application, every few minutes."""

from __future__ import annotations

from typing import Any

from prefect import State

from blocks.http_api import HttpApi
from tasks.connections import load_connection
from tasks.integration_flow import flow, run_name
from tasks.queue import (
    QUEUE_BLOCKS,
    FileMessages,
    QueueImport,
    ended,
    import_messages,
    open_queue,
    show_bad_messages,
)
from tasks.record_import import MODELS, RecordType


@flow(name="queue-import", flow_run_name=run_name("{name}", "{queue}"))
async def queue_import(
    queue: str,
    record_type: RecordType,
    name: str = "",
    group: str = "imports",
    application: str = "http-api/own-app",
    columns: dict[str, str] | None = None,
    decimal_comma: bool = False,
    empty_texts: tuple[str, ...] = ("",),
    file: FileMessages | None = None,
    limit: int = 1000,
    batch_size: int = 100,
    retries: int = 2,
    retry_delay_s: float = 10,
) -> State[Any]:
    """Import what waits in one queue: take it, check it, send it, then acknowledge it.

    A bad message is dead-lettered in the inbox with the reason, and the others go in. When it is
    replayed, the next run takes it. Retry takes what is still in the queue.

    Args:
        queue: The block that leads to it, as type/name: sqs-queue/…, rabbitmq-broker/… or
            redis-server/….
        record_type: What the messages hold.
        name: The queue on a RabbitMQ broker, or the stream on a Redis server.
        group: The consumer group of a Redis stream.
        application: The block of the application that takes the records.
        columns: The messages' names to the record's field names, where they differ; those of
            the files, where messages hold files.
        decimal_comma: Numbers in texts are written as 1.234,50.
        empty_texts: What messages hold where there is no value.
        file: Messages hold whole files, whose records are imported; empty: each is a record in
            JSON.
        limit: Messages a run at most.
        batch_size: Messages taken at once, and records a request to the application.
        retries: How often the rest is tried again when something is out of reach.
        retry_delay_s: Seconds before that.
    """
    broker = await load_connection(queue, *QUEUE_BLOCKS)
    what = QueueImport(
        # the messages to fetch
        integration="queue_import",
        source=open_queue(broker, name=name, group=group),
        file=file,
        limit=limit,
        # the records they become
        model=MODELS[record_type],
        columns=columns or {},
        decimal_comma=decimal_comma,
        empty_texts=empty_texts,
        # the application that takes them
        application=await load_connection(application, HttpApi),
        resource=record_type,
        batch_size=batch_size,
    )
    imported = await import_messages(what, retries=retries, retry_delay_s=retry_delay_s)
    await show_bad_messages(what, imported)
    return ended(imported)
