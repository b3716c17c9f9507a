"""Scheduled imports from queues: take what waits, import it, acknowledge it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from prefect import State, runtime, task
from prefect.blocks.core import Block
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict, Field

from blocks.errors import IntegrationError
from blocks.rabbitmq_broker import RabbitMqBroker
from blocks.redis_server import RedisServer
from blocks.sqs_queue import SqsQueue as SqsQueueBlock
from tasks.api import is_transient, open_api
from tasks.core.connectors.messages.decoding import AnyBytes
from tasks.core.connectors.messages.message import Message, MessageSource
from tasks.core.connectors.messages.rabbitmq import RabbitMqQueue
from tasks.core.connectors.messages.redis_streams import RedisStream
from tasks.core.connectors.messages.sqs import SqsQueue
from tasks.core.formats.records.formats import FileFormat
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.store import Inbox
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.intake.messages.reading import MessageReader, MessageReading
from tasks.core.intake.messages.replayed_messages import ReplayedMessages
from tasks.core.state.database import open_database
from tasks.core.sync.batches.result import ImportResult
from tasks.core.sync.record_import.importing import ImportItem, RecordImporter
from tasks.core.sync.record_import.queue_messages import DeadLetter, Sink, take_waiting
from tasks.core.threads import in_thread
from tasks.import_results import ended, run_import, show_rejects
from tasks.outcomes import failed
from tasks.record_import import RecordImport

__all__ = [
    "QUEUE_BLOCKS",
    "FileMessages",
    "QueueImport",
    "ended",
    "import_messages",
    "import_messages_of_queue",
    "open_queue",
    "show_bad_messages",
]

_LEASE_S = 60  # extended every ten while the application works

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


class FileMessages(BaseModel):
    """Messages that hold whole files, in place of one record each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name_header: str | None = Field(None, description="The header or attribute with their names.")
    file_format: FileFormat | None = Field(None, description="How to read them; empty: by name.")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueImport(RecordImport):
    """Everything that describes one import from a queue.

    Attributes:
        integration: In whose name bad messages are dead-lettered.
        source: From `open_queue`.
        file: Messages hold whole files.
        limit: Messages a run at most.
        batch_size: Messages taken, and records sent, at once.
    """

    integration: str
    source: MessageSource
    file: FileMessages | None = None
    limit: int = 1000
    batch_size: int = 100


async def import_messages(
    what: QueueImport, *, retries: int = 0, retry_delay_s: float = 10
) -> ImportResult:
    """Import what waits in a queue, and acknowledge it when it is in.

    A message that is no such record, that the application refuses, or of whose file something
    is not taken, is kept in the inbox as dead-lettered, where it is seen and can be looked at; the
    others go on. The run then fails. Those of this queue that were replayed since are imported
    first. With a transient error, what was not imported is back in the queue, or in the inbox.

    Args:
        what: Everything that describes the import.
        retries: How often the rest is tried again while the queue or the application is out of
            reach.
        retry_delay_s: Seconds before that.
    """
    return await run_import(
        import_messages_of_queue, what, ImportResult, retries=retries, retry_delay_s=retry_delay_s
    )


@task(
    task_run_name="import what waits in {what.source.system}",
    cache_policy=NO_CACHE,
    retry_condition_fn=is_transient,
)
async def import_messages_of_queue(what: QueueImport) -> State[ImportResult]:
    """The work of `import_messages` as a task run."""
    try:
        imported = await _import_messages(what)
    except IntegrationError as error:
        return failed(str(error), data=error)
    return ended(imported, data=imported)


async def show_bad_messages(what: QueueImport, imported: ImportResult) -> None:
    """Put a table of the records that were not taken into the Prefect UI, if any were not."""
    description = f"Messages of {what.source.system} not imported"
    await show_rejects(f"{what.integration}-rejects", description, imported.rejects)


async def _import_messages(what: QueueImport) -> ImportResult:
    imported = ImportResult(
        unit="message", bad_word="dead-lettered", holds_files=what.file is not None
    )
    async with _inbox(what) as (replayed, dead_letter):
        with open_api(what.application) as api:
            importer = what.importer(
                api, system=what.source.system, file=what.file, batch_size=what.batch_size
            )
            sink = _sink(what, importer, imported)
            for source, keep in ((replayed, replayed.dead_letter), (what.source, dead_letter)):
                await take_waiting(
                    source, sink, keep, limit=what.limit, batch=what.batch_size, result=imported
                )
    return imported


@asynccontextmanager
async def _inbox(what: QueueImport) -> AsyncIterator[tuple[ReplayedMessages, DeadLetter]]:
    """What was replayed of this queue, and where bad messages go."""
    engine = await in_thread(open_database)
    writer = InboxWriter(engine)
    reader = MessageReader(
        MessageReading(
            integration=what.integration, endpoint=what.source.system, decoder=AnyBytes()
        )
    )

    async def dead_letter(message: Message, reason: str) -> None:
        defective = message._replace(defect=reason)
        await writer.store([await reader.delivery(defective, received_at=datetime.now(UTC))])

    inbox = await in_thread(Inbox, engine)
    owner = LeaseOwner(str(runtime.flow_run.id), lease_s=_LEASE_S)
    replayed = ReplayedMessages(
        inbox, owner, integration=what.integration, endpoint=what.source.system
    )
    try:
        await writer.start()
        yield replayed, dead_letter
    finally:
        await writer.close()
        await in_thread(inbox.close)


def _sink(what: QueueImport, importer: RecordImporter, imported: ImportResult) -> Sink:
    async def sink(messages: Sequence[Message]) -> Mapping[int, str]:
        entries = [_entry(message, what.file) for message in messages]
        taken = await in_thread(importer.take, entries)
        imported.add_records(taken)
        return taken.bad

    return sink


def _entry(message: Message, file: FileMessages | None) -> ImportItem:
    # without one, equal messages may both be meant: each counts for itself
    identity = message.identity or uuid.uuid4().hex
    file_name = ""
    if file is not None and file.name_header is not None:
        wanted = file.name_header.lower()
        file_name = next((value for name, value in message.headers if name.lower() == wanted), "")
    content = message.body if message.content is None else message.content
    return ImportItem(file_name or message.identity or "without id", identity, content, file_name)
