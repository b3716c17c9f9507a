"""Declares each kind of source, and builds the source from its declaration."""

from __future__ import annotations

import platform
from typing import Annotated, Literal

import httpx
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from blocks.connections.imap import ImapConnection
from blocks.connections.kafka import KafkaConnection
from blocks.connections.mqtt import MqttConnection
from blocks.connections.nats import NatsConnection
from blocks.connections.rabbitmq import RabbitMqConnection
from blocks.connections.redis import RedisConnection
from blocks.connections.sqs import SqsConnection
from tasks.core.connectors.messages.decoding import (
    AnyBytes,
    Decoder,
    JsonDecoder,
    SchemaRegistryDecoder,
)
from tasks.core.connectors.messages.imap_mailbox import ImapMailbox, MailRules
from tasks.core.connectors.messages.kafka import KafkaTopics
from tasks.core.connectors.messages.message import MessageSource
from tasks.core.connectors.messages.mqtt import MqttTopic
from tasks.core.connectors.messages.nats_jetstream import JetStreamConsumer
from tasks.core.connectors.messages.rabbitmq import RabbitMqQueue
from tasks.core.connectors.messages.redis_streams import RedisStream
from tasks.core.connectors.messages.sqs import SqsQueue

Places = Annotated[list[str], BeforeValidator(lambda one: [one] if isinstance(one, str) else one)]


class SchemaRegistry(BaseModel):
    """The schema registry that decodes bodies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(pattern=r"^https?://", description="The registry's address.")
    username: str | None = Field(None, description="The login, or the API key.")
    password: SecretStr | None = Field(None, description="Its password, or secret.")

    def decoder(self) -> Decoder:
        """Return the decoder that uses this registry."""
        auth = None
        if self.username is not None:
            password = self.password.get_secret_value() if self.password else ""
            auth = httpx.BasicAuth(self.username, password)
        return SchemaRegistryDecoder(httpx.AsyncClient(base_url=self.url, auth=auth))


class SourceDeclaration(BaseModel):
    """The fields that all kinds share: how a message is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    event: Places = Field(["subject"], description="Where the event's name is.")
    dedup: Places = Field(["source", "nothing"], description="Where an id is that repeats share.")
    ordering_key: Places = Field(["source"], description="Where the key to order by is.")
    content: Literal["json", "anything"] | SchemaRegistry = Field(
        "json", description="Format of the bodies; others are dead-lettered."
    )
    max_body_bytes: int = Field(1024 * 1024, gt=0, description="Larger messages are dead-lettered.")
    batch: int = Field(500, ge=1, le=5000, description="Messages received at once.")
    feeds: str = Field("", description="The deployment that handles the messages, for people.")

    def decoder(self) -> Decoder:
        """Return the decoder of the bodies."""
        if isinstance(self.content, SchemaRegistry):
            return self.content.decoder()
        return JsonDecoder() if self.content == "json" else AnyBytes()

    def make_source(self, name: str) -> MessageSource:
        """Return the source, not yet connected.

        Args:
            name: As declared; by default it identifies us at the source.
        """
        raise NotImplementedError


class SqsDeclaration(SourceDeclaration):
    """An Amazon SQS queue; SNS topics may feed it."""

    kind: Literal["sqs"]
    connection: SqsConnection
    visibility_timeout_s: int = Field(60, ge=2, le=43_200, description="Extended while storing.")

    def make_source(self, name: str) -> MessageSource:
        """See `SourceDeclaration.make_source`."""
        return SqsQueue(
            self.connection.get_client,
            system=self.connection.system,
            queue_url=self.connection.queue_url,
            visibility_timeout_s=self.visibility_timeout_s,
        )


class KafkaDeclaration(SourceDeclaration):
    """Kafka topics, read as a member of a group."""

    kind: Literal["kafka"]
    connection: KafkaConnection
    topics: Places = Field(min_length=1, description="Names, or patterns that start with ^.")
    group: str | None = Field(None, description="The group; by default the source's name.")
    order_by: Literal["key", "partition"] = Field("key", description="What stays in order.")
    start: Literal["earliest", "latest"] = Field("earliest", description="Where a group starts.")

    def make_source(self, name: str) -> MessageSource:
        """See `SourceDeclaration.make_source`."""
        return KafkaTopics(
            self.connection.client_config(),
            system=self.connection.system,
            topics=self.topics,
            group=self.group or name,
            order_by=self.order_by,
            start=self.start,
        )


class ImapDeclaration(SourceDeclaration):
    """A folder of a mailbox."""

    kind: Literal["imap"]
    connection: ImapConnection
    folder: str = Field("INBOX", description="Folder to read mails from.")
    senders: Places = Field(min_length=1, description="Addresses, and domains as @example.com.")
    authserv_id: str | None = Field(
        None, description="Require DMARC, as this server of ours reports."
    )
    archive_folder: str | None = Field("Processed", description="For stored mails; null deletes.")
    error_folder: str = Field("Unreadable", description="For unreadable mails.")
    refused_folder: str = Field("Refused", description="For mails from other senders.")
    poll_s: float = Field(60, gt=0, description="Seconds between polls of the server.")
    max_body_bytes: int = Field(
        25 * 1024 * 1024, gt=0, description="Larger mails are dead-lettered."
    )
    event: Places = Field(["text:mail"], description="Where the event's name is.")
    batch: int = Field(20, ge=1, le=500, description="Mails received at once.")

    def make_source(self, name: str) -> MessageSource:
        """See `SourceDeclaration.make_source`."""
        return ImapMailbox(
            self.connection.get_client,
            system=self.connection.system,
            folder=self.folder,
            rules=MailRules(
                senders=tuple(each.lower() for each in self.senders),
                authserv_id=self.authserv_id,
                max_bytes=self.max_body_bytes,
                archive_folder=self.archive_folder,
                error_folder=self.error_folder,
                refused_folder=self.refused_folder,
            ),
            poll_s=self.poll_s,
        )


class RabbitMqDeclaration(SourceDeclaration):
    """A RabbitMQ queue."""

    kind: Literal["rabbitmq"]
    connection: RabbitMqConnection
    queue: str = Field(description="The queue, which must exist.")
    prefetch: int = Field(1000, ge=1, le=65_535, description="Messages sent ahead.")

    def make_source(self, name: str) -> MessageSource:
        """See `SourceDeclaration.make_source`."""
        return RabbitMqQueue(
            self.connection.get_client,
            system=self.connection.system,
            queue=self.queue,
            prefetch=self.prefetch,
        )


class NatsDeclaration(SourceDeclaration):
    """A NATS JetStream stream."""

    kind: Literal["nats"]
    connection: NatsConnection
    stream: str = Field(description="The stream, which must exist.")
    subject: str | None = Field(None, description="Only messages of this subject.")
    durable: str | None = Field(None, description="The consumer; by default the source's name.")
    ack_wait_s: float = Field(30, ge=1, description="Seconds until redelivery.")

    def make_source(self, name: str) -> MessageSource:
        """See `SourceDeclaration.make_source`."""
        return JetStreamConsumer(
            self.connection.get_client,
            system=self.connection.system,
            stream=self.stream,
            durable=self.durable or name,
            subject=self.subject,
            ack_wait_s=self.ack_wait_s,
        )


class MqttDeclaration(SourceDeclaration):
    """MQTT topics."""

    kind: Literal["mqtt"]
    connection: MqttConnection
    topics: Places = Field(min_length=1, description="Topics; may have wildcards.")
    client_id: str | None = Field(None, description="The session; by default the source's name.")
    max_waiting: int = Field(1000, ge=1, le=65_535, description="Messages sent ahead.")

    def make_source(self, name: str) -> MessageSource:
        """See `SourceDeclaration.make_source`."""
        return MqttTopic(
            self.connection.get_client,
            host=self.connection.host,
            port=self.connection.port,
            keepalive_s=self.connection.keepalive_s,
            system=self.connection.system,
            topics=self.topics,
            client_id=self.client_id or name,
            max_waiting=self.max_waiting,
        )


class RedisDeclaration(SourceDeclaration):
    """A Redis stream."""

    kind: Literal["redis"]
    connection: RedisConnection
    stream: str = Field(description="The stream's key.")
    group: str | None = Field(None, description="The group; by default the source's name.")
    consumer: str = Field(
        default_factory=platform.node, description="This consumer; by default the machine's name."
    )
    body_field: str = Field("body", description="The field that holds the event.")
    take_over_after_s: float = Field(60, gt=0, description="Take over entries this old.")

    def make_source(self, name: str) -> MessageSource:
        """See `SourceDeclaration.make_source`."""
        return RedisStream(
            self.connection.get_client,
            system=self.connection.system,
            stream=self.stream,
            group=self.group or name,
            consumer=self.consumer,
            body_field=self.body_field,
            take_over_after_s=self.take_over_after_s,
        )


AnySource = Annotated[
    SqsDeclaration
    | KafkaDeclaration
    | ImapDeclaration
    | RabbitMqDeclaration
    | NatsDeclaration
    | MqttDeclaration
    | RedisDeclaration,
    Field(discriminator="kind"),
]
