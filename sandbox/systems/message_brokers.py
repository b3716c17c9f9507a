"""Real brokers with a queue or topic of our own: filled, listened to, and removed again.

Every broker has the same few methods, so that tests, benchmarks and the demo treat them alike.
"""

from __future__ import annotations

import asyncio
import importlib
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from blocks.connections.mqtt import MqttConnection
from blocks.connections.nats import NatsConnection
from blocks.connections.rabbitmq import RabbitMqConnection
from blocks.connections.redis import RedisConnection
from sandbox.systems.imap_server import ImapSandbox
from sandbox.systems.kafka_cluster import KafkaCluster
from sandbox.systems.order_mail import order_mail

_HOST = "127.0.0.1"


class Broker(Protocol):
    """One queue, topic or mailbox.

    Attributes:
        kind: As declarations call it.
        address: Where it really is; None if no proxy can stand before it.
    """

    kind: str
    address: tuple[str, int] | None

    def declaration(self, host: str, port: int) -> dict[str, Any]:
        """What a `sources.yaml` says of it, reached at this address."""
        ...

    async def create(self) -> None:
        """Make the queue; raises `OSError` or the client's error if there is no broker."""
        ...

    async def publish(self, bodies: Sequence[bytes], *, key: str | None = None) -> None:
        """Send messages; returns when the broker has them."""
        ...

    async def remove(self) -> None:
        """Remove the queue."""
        ...


class RabbitMq:
    """A queue on the RabbitMQ of this machine."""

    kind = "rabbitmq"
    address: tuple[str, int] | None = (_HOST, 5672)

    def __init__(self) -> None:
        self.name = f"test-{uuid.uuid4().hex[:12]}"

    def declaration(self, host: str, port: int) -> dict[str, Any]:
        """See `Broker.declaration`."""
        login = {"username": "guest", "password": "guest"}
        return {
            "kind": "rabbitmq",
            "connection": {"host": host, "port": port, "tls": False, **login},
            "queue": self.name,
        }

    async def create(self) -> None:
        """See `Broker.create`."""
        async with await self.connect() as connection:
            channel = await connection.channel()
            await channel.declare_queue(self.name, durable=True)

    async def publish(self, bodies: Sequence[bytes], *, key: str | None = None) -> None:
        """See `Broker.publish`."""
        import aio_pika

        async with await self.connect() as connection:
            channel = await connection.channel(publisher_confirms=False)
            for body in bodies:
                message = aio_pika.Message(body, message_id=uuid.uuid4().hex, delivery_mode=2)
                await channel.default_exchange.publish(message, self.name)
            await channel.declare_queue(self.name, passive=True)  # behind all of them

    async def remove(self) -> None:
        """See `Broker.remove`."""
        async with await self.connect() as connection:
            channel = await connection.channel()
            await channel.queue_delete(self.name)

    async def connect(self) -> Any:
        """A client for whoever runs the broker."""
        return await RabbitMqConnection(
            host=_HOST,
            port=5672,
            tls=False,
            username="guest",
            password="guest",  # noqa: S106 - RabbitMQ's default
        ).get_client()


class Nats:
    """A stream on the NATS server of this machine."""

    kind = "nats"
    address: tuple[str, int] | None = (_HOST, 4222)

    def __init__(self) -> None:
        self.name = f"test-{uuid.uuid4().hex[:12]}"

    def declaration(self, host: str, port: int) -> dict[str, Any]:
        """See `Broker.declaration`."""
        connection = {"host": host, "port": port, "tls": False}
        return {
            "kind": "nats",
            "connection": connection,
            "stream": self.name,
            "ack_wait_s": 1.5,
        }

    async def create(self) -> None:
        """See `Broker.create`."""
        client = await self.connect()
        await client.jetstream().add_stream(name=self.name, subjects=[self.name])
        await client.close()

    async def publish(self, bodies: Sequence[bytes], *, key: str | None = None) -> None:
        """See `Broker.publish`."""
        client = await self.connect()
        context = client.jetstream()
        for at in range(0, len(bodies), 200):
            await asyncio.gather(
                *(context.publish(self.name, body) for body in bodies[at : at + 200])
            )
        await client.close()

    async def remove(self) -> None:
        """See `Broker.remove`."""
        client = await self.connect()
        await client.jetstream().delete_stream(self.name)
        await client.close()

    async def connect(self) -> Any:
        """A client for whoever runs the broker."""
        return await NatsConnection(host=_HOST, tls=False).get_client()


class Redis:
    """A stream on the Redis server of this machine."""

    kind = "redis"
    address: tuple[str, int] | None = (_HOST, 6379)

    def __init__(self) -> None:
        self.name = f"test-{uuid.uuid4().hex[:12]}"

    def declaration(self, host: str, port: int) -> dict[str, Any]:
        """See `Broker.declaration`."""
        connection = {"host": host, "port": port, "tls": False}
        return {"kind": "redis", "connection": connection, "stream": self.name}

    async def create(self) -> None:
        """See `Broker.create`."""
        async with self.connect() as client:
            await client.ping()

    async def publish(self, bodies: Sequence[bytes], *, key: str | None = None) -> None:
        """See `Broker.publish`."""
        async with self.connect() as client:
            for at in range(0, len(bodies), 500):
                pipeline = client.pipeline(transaction=False)
                for body in bodies[at : at + 500]:
                    pipeline.xadd(self.name, {"body": body})
                await pipeline.execute()

    async def remove(self) -> None:
        """See `Broker.remove`."""
        async with self.connect() as client:
            await client.delete(self.name)

    def connect(self) -> Any:
        """A client for whoever runs the broker."""
        return RedisConnection(host=_HOST, tls=False).get_client()


class Mqtt:
    """A topic on the MQTT broker of this machine; its session must be there before messages."""

    kind = "mqtt"

    def __init__(self, port: int = 1883) -> None:
        self.address: tuple[str, int] | None = (_HOST, port)
        self._port = port
        self.name = f"test-{uuid.uuid4().hex[:12]}"

    def declaration(self, host: str, port: int) -> dict[str, Any]:
        """See `Broker.declaration`."""
        return {
            "kind": "mqtt",
            "connection": {"host": host, "port": port, "tls": False},
            "topics": [self.name],
            "client_id": self.name,
            "dedup": "field:id",
        }

    async def create(self) -> None:
        """Begin the listener's session, so that the broker keeps messages for it."""
        source = self.source()
        await source.open()
        await source.close()

    async def publish(self, bodies: Sequence[bytes], *, key: str | None = None) -> None:
        """See `Broker.publish`."""
        await asyncio.to_thread(self._publish, bodies)

    async def remove(self) -> None:
        """End the session."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        client = self._connection().get_client(self.name)
        properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 0
        client.connect(_HOST, self._port, clean_start=True)
        client.loop_start()
        while not client.is_connected():  # noqa: ASYNC110 - told by another thread
            await asyncio.sleep(0.01)
        client.disconnect(properties=properties)
        client.loop_stop()

    def _publish(self, bodies: Sequence[bytes]) -> None:
        client = self._connection().get_client(f"{self.name}-publisher")
        client.max_inflight_messages_set(100)
        client.connect(_HOST, self._port, clean_start=True)
        client.loop_start()
        published = [client.publish(self.name, body, qos=1) for body in bodies]
        for each in published:
            each.wait_for_publish(30)
        client.disconnect()
        client.loop_stop()

    def source(self) -> Any:
        """The listener's own session."""
        from tasks.core.connectors.messages.mqtt import MqttTopic

        return MqttTopic(
            self._connection().get_client,
            host=_HOST,
            port=self._port,
            keepalive_s=30,
            system="mqtt://sandbox",
            topics=[self.name],
            client_id=self.name,
        )

    def _connection(self) -> MqttConnection:
        return MqttConnection(host=_HOST, port=self._port, tls=False)


class Kafka:
    """A topic of a stand-in cluster; no proxy can stand before it, since brokers name themselves.

    Args:
        cluster: The cluster.
    """

    kind = "kafka"
    address: tuple[str, int] | None = None

    def __init__(self, cluster: KafkaCluster) -> None:
        self.cluster = cluster
        self.name = f"test-{uuid.uuid4().hex[:12]}"

    def declaration(self, host: str, port: int) -> dict[str, Any]:
        """See `Broker.declaration`."""
        return {
            "kind": "kafka",
            "connection": {
                "bootstrap_servers": self.cluster.bootstrap_servers,
                "security": "plaintext",
                # the stand-in lets a group that was left rest for a session's length
                "properties": {"session.timeout.ms": "1500", "heartbeat.interval.ms": "300"},
            },
            "topics": [self.name],
        }

    async def create(self) -> None:
        """See `Broker.create`."""
        self.cluster.create_topic(self.name, 4)

    async def publish(self, bodies: Sequence[bytes], *, key: str | None = None) -> None:
        """See `Broker.publish`."""
        await asyncio.to_thread(self._publish, bodies, key)

    async def remove(self) -> None:
        """Nothing: the topic ends with the cluster."""

    def _publish(self, bodies: Sequence[bytes], key: str | None) -> None:
        from confluent_kafka import Producer

        # All partitions alike: the stand-in forgets what is beyond 5 MB in one.
        settings = {"linger.ms": 5, "sticky.partitioning.linger.ms": 0}
        producer = Producer({"bootstrap.servers": self.cluster.bootstrap_servers, **settings})
        for body in bodies:
            producer.produce(self.name, body, key=key)
            producer.poll(0)
        if left := producer.flush(30):
            raise TimeoutError(f"{left} messages were not taken")


class Sqs:
    """A queue of a stand-in service.

    Args:
        endpoint_url: The service.
    """

    kind = "sqs"

    def __init__(self, endpoint_url: str) -> None:
        host, _, port = endpoint_url.removeprefix("http://").partition(":")
        self.address: tuple[str, int] | None = (host, int(port))
        self.name = f"test-{uuid.uuid4().hex[:12]}"
        boto3: Any = importlib.import_module("boto3")  # each service's types are a package
        self.client = boto3.client(
            "sqs",
            endpoint_url=endpoint_url,
            region_name="us-east-1",
            aws_access_key_id="sandbox",
            aws_secret_access_key="sandbox",  # noqa: S106 - a stand-in's, not a secret
        )
        self.queue_url = ""

    def declaration(self, host: str, port: int) -> dict[str, Any]:
        """See `Broker.declaration`."""
        return {
            "kind": "sqs",
            "connection": {
                "queue_url": self.queue_url,
                "endpoint_url": f"http://{host}:{port}",
                "region": "us-east-1",
                "access_key_id": "sandbox",
                "secret_access_key": "sandbox",
            },
            "visibility_timeout_s": 3,
        }

    async def create(self) -> None:
        """See `Broker.create`."""
        self.queue_url = self.client.create_queue(QueueName=self.name)["QueueUrl"]

    async def publish(self, bodies: Sequence[bytes], *, key: str | None = None) -> None:
        """See `Broker.publish`."""
        for at in range(0, len(bodies), 10):
            entries = [
                {"Id": str(number), "MessageBody": body.decode()}
                for number, body in enumerate(bodies[at : at + 10])
            ]
            await asyncio.to_thread(
                self.client.send_message_batch, QueueUrl=self.queue_url, Entries=entries
            )

    async def remove(self) -> None:
        """See `Broker.remove`."""
        self.client.delete_queue(QueueUrl=self.queue_url)


class Mailbox:
    """A stand-in mailbox; bodies arrive as mails from a partner.

    Args:
        server: The server.
    """

    kind = "imap"

    def __init__(self, server: ImapSandbox) -> None:
        self.server = server
        self.address: tuple[str, int] | None = (_HOST, server.port)

    def declaration(self, host: str, port: int) -> dict[str, Any]:
        """See `Broker.declaration`."""
        login = {"username": self.server.username, "password": self.server.password}
        return {
            "kind": "imap",
            "connection": {"host": host, "port": port, "tls": False, **login},
            "senders": ["@partner.example"],
        }

    async def create(self) -> None:
        """Nothing: it is there."""

    async def publish(self, bodies: Sequence[bytes], *, key: str | None = None) -> None:
        """See `Broker.publish`."""
        for body in bodies:
            await asyncio.to_thread(self.server.deliver, order_mail(body))

    async def remove(self) -> None:
        """Nothing: it ends with the server."""
