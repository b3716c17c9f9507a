"""Messages of Kafka topics, received as a member of a consumer group."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from blocks.errors import (
    IntegrationError,
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamFailedError,
)
from tasks.core.connectors.messages.message import ANSWER_TIMEOUT_S, CLOSE_TIMEOUT_S, Message
from tasks.core.threads import in_thread_without_grace

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, TopicPartition
    from confluent_kafka import Message as KafkaMessage

_LOOK_S = 0.5


class KafkaTopics:
    """Topics read by a group: each partition by one member, from the group's committed offset.

    Only `acknowledge` commits offsets, and only those of partitions that are still ours. A
    message's identity is topic, partition, offset and timestamp.

    Args:
        config: How to reach the cluster, in librdkafka's settings.
        system: The cluster, for errors.
        topics: Names; a name that starts with "^" is a pattern.
        group: The group's name.
        order_by: Which messages stay in order: those with the same key, or all of a partition.
        start: Where a group without committed offsets starts.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        system: str,
        topics: Sequence[str],
        group: str,
        order_by: Literal["key", "partition"] = "key",
        start: Literal["earliest", "latest"] = "earliest",
    ) -> None:
        self._config = {
            "group.id": group,
            "auto.offset.reset": start,
            "partition.assignment.strategy": "cooperative-sticky",
            "queued.max.messages.kbytes": 32 * 1024,
            **config,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
        }
        self._system = system
        self._topics = topics
        self._order_by = order_by
        self._member: _Member | None = None

    @property
    def system(self) -> str:
        """The cluster."""
        return self._system

    @property
    def reads_ahead(self) -> bool:
        """True: more may be received while earlier messages are being stored."""
        return True

    async def open(self) -> None:
        """Check that the topics exist, and join the group."""
        self._member = member = _Member(self._system, self._order_by)
        await in_thread_without_grace(member.join, self._config, self._topics)

    async def receive(self, limit: int, *, wait_s: float) -> list[Message]:
        """Return messages that were fetched ahead, up to 32 MiB."""
        return await in_thread_without_grace(self._joined.receive, limit, wait_s)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Commit the offsets behind these messages."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):  # librdkafka would retry for ever
                await in_thread_without_grace(self._joined.commit, messages)
        except TimeoutError as exc:
            raise UnreachableError(
                "no broker answers", system=self._system, operation="acknowledge"
            ) from exc

    async def hold(self, messages: Sequence[Message]) -> None:
        """Pause fetching, and poll: the group removes members that do not."""
        await in_thread_without_grace(self._joined.hold)

    async def give_back(self, messages: Sequence[Message]) -> None:
        """Leave the group without committing: another member receives the messages again."""
        await self.close()

    async def lag(self) -> int | None:
        """Return how many messages of our partitions are not fetched yet."""
        return await in_thread_without_grace(self._joined.lag)

    async def close(self) -> None:
        """Leave the group, once a call that nobody waits for any more has ended."""
        member, self._member = self._member, None
        if member is not None:
            with contextlib.suppress(Exception):  # the connection may be dead already
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await in_thread_without_grace(member.leave)

    @property
    def _joined(self) -> _Member:
        if self._member is None:
            raise UnreachableError("not connected", system=self._system, operation="receive")
        return self._member


class _Member:
    """A member of the group; calls block and run one at a time."""

    def __init__(self, system: str, order_by: Literal["key", "partition"]) -> None:
        self._system = system
        self._order_by = order_by
        self._in_use = threading.Lock()
        self._is_leaving = False
        self._consumer: Consumer | None = None
        self._owned: set[tuple[str, int]] = set()
        self._paused: list[TopicPartition] = []
        self._arrived_on_hold: list[KafkaMessage] = []
        self._trouble: KafkaError | None = None
        self._cause: KafkaError | None = None

    def join(self, config: Mapping[str, Any], topics: Sequence[str]) -> None:
        from confluent_kafka import Consumer, KafkaException

        with self._in_use:
            try:
                self._consumer = consumer = Consumer(
                    {**config, "error_cb": self._note_trouble, "logger": _silence()}
                )
            except KafkaException as exc:
                raise MisconfiguredError(
                    f"the client refuses the settings: {exc.args[0].str()}",
                    system=self._system,
                    operation="connect",
                ) from exc
            with self._errors("connect"):
                for topic in topics:
                    if not topic.startswith("^"):
                        self._look_for(topic)
                consumer.subscribe(
                    list(topics),
                    on_assign=self._note_assigned,
                    on_revoke=self._note_revoked,
                    on_lost=self._note_revoked,
                )

    def leave(self) -> None:
        self._is_leaving = True
        with self._in_use:
            consumer, self._consumer = self._consumer, None
            if consumer is not None:
                consumer.close()

    def _look_for(self, topic: str) -> None:
        """Wait until the cluster describes a topic, or until the reason why not is known."""
        from confluent_kafka import KafkaException

        until_s = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            try:
                found = self._open_consumer.list_topics(topic, timeout=_LOOK_S).topics[topic]
            except KafkaException:
                self._open_consumer.poll(0)  # reports earlier errors
                if self._cause is not None:
                    raise _exception(self._cause) from None
                if self._is_leaving or time.monotonic() > until_s:
                    raise
            else:
                if found.error is not None:
                    raise _exception(found.error)
                return

    def receive(self, limit: int, wait_s: float) -> list[Message]:
        with self._in_use, self._errors("receive"):
            consumer = self._open_consumer
            if self._paused:
                consumer.resume(self._paused)
                self._paused = []
            found = self._arrived_on_hold[:limit]
            del self._arrived_on_hold[:limit]
            if not found:
                # a single message first: `consume` waits for the full number
                first = consumer.poll(wait_s)
                found = [] if first is None else [first]
                if found and limit > 1:
                    found += consumer.consume(limit - 1, 0.0)
            if not found and self._trouble is not None:
                raise _exception(self._cause or self._trouble)
            self._trouble = self._cause = None
            for each in found:
                error = each.error()
                if error is not None:
                    raise _exception(error)
            return [self._message(each) for each in found]

    def commit(self, messages: Sequence[Message]) -> None:
        from confluent_kafka import KafkaError, KafkaException, TopicPartition

        behind: dict[tuple[str, int], int] = {}
        for message in messages:
            topic, partition, offset = message.receipt
            behind[topic, partition] = max(behind.get((topic, partition), 0), offset + 1)
        with self._in_use, self._errors("acknowledge"):
            offsets = [
                TopicPartition(topic, partition, offset)
                for (topic, partition), offset in behind.items()
                if (topic, partition) in self._owned
            ]
            if not offsets:
                return
            try:
                self._open_consumer.commit(offsets=offsets, asynchronous=False)
            except KafkaException as exc:
                # Other members own the partitions now and receive these messages as duplicates.
                if exc.args[0].code() not in {
                    KafkaError.ILLEGAL_GENERATION,
                    KafkaError.REBALANCE_IN_PROGRESS,
                    KafkaError.UNKNOWN_MEMBER_ID,
                    KafkaError._NO_OFFSET,  # noqa: SLF001 - librdkafka's own codes begin so
                }:
                    raise

    def hold(self) -> None:
        with self._in_use, self._errors("hold"):
            consumer = self._open_consumer
            self._paused = consumer.assignment()
            consumer.pause(self._paused)
            # a message that still arrives is from a partition assigned at this moment
            self._arrived_on_hold += consumer.consume(100, 0.0)

    def lag(self) -> int:
        lag = 0
        with self._in_use, self._errors("look"):
            consumer = self._open_consumer
            for position in consumer.position(consumer.assignment()):
                watermarks = consumer.get_watermark_offsets(position, cached=True)
                if watermarks is not None and position.offset >= 0:
                    lag += max(0, watermarks[1] - position.offset)
        return lag

    def _message(self, message: KafkaMessage) -> Message:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        key, value = message.key(), message.value()
        _, stamped_ms = message.timestamp()
        pairs: Any = message.headers() or ()
        headers = [(name, _text(content)) for name, content in pairs]
        order: str | None = f"{topic}:{partition}"
        if self._order_by == "key":
            order = None if key is None else f"{topic}:{_text(key)}"
        if key is not None:
            headers.append(("kafka-key", _text(key)))
        return Message(
            subject=str(topic),
            body=value or b"",
            receipt=(topic, partition, offset),
            # the timestamp tells a topic from a deleted one of the same name
            identity=f"{topic}:{partition}:{offset}:{stamped_ms}",
            key=order,
            headers=headers,
            content_type=dict(headers).get("content-type", ""),
            content=b"null" if value is None else None,  # a tombstone: the key was deleted
        )

    @property
    def _open_consumer(self) -> Consumer:
        if self._consumer is None:
            raise UnreachableError("not connected", system=self._system, operation="receive")
        return self._consumer

    def _note_assigned(self, _consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._owned |= {(each.topic, each.partition) for each in partitions}

    def _note_revoked(self, _consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._owned -= {(each.topic, each.partition) for each in partitions}
        self._paused = [
            each for each in self._paused if (each.topic, each.partition) in self._owned
        ]

    def _note_trouble(self, error: KafkaError) -> None:
        from confluent_kafka import KafkaError

        if _tells_why(error):
            self._cause = error
        # librdkafka reconnects single brokers by itself
        if error.fatal() or error.code() in {
            KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001 - librdkafka's own codes begin so
            KafkaError._AUTHENTICATION,  # noqa: SLF001
        }:
            self._trouble = error

    @contextlib.contextmanager
    def _errors(self, operation: str) -> Iterator[None]:
        from confluent_kafka import KafkaException

        try:
            yield
        except KafkaException as exc:
            raise self._mapped(exc.args[0], operation) from exc
        except RuntimeError as exc:  # closed meanwhile
            raise UnreachableError(
                "the consumer is closed", system=self._system, operation=operation
            ) from exc

    def _mapped(self, error: KafkaError, operation: str) -> IntegrationError:
        from confluent_kafka import KafkaError as Codes

        where: dict[str, Any] = {"system": self._system, "operation": operation}
        code, name = error.code(), error.name()
        if code in {Codes.UNKNOWN_TOPIC_OR_PART, Codes._UNKNOWN_TOPIC}:  # noqa: SLF001
            return MisconfiguredError("a topic does not exist; create it first", **where)
        if "AUTH" in name or code == Codes.SASL_AUTHENTICATION_FAILED:
            return MisconfiguredError(
                f"the cluster refused access ({name}); check login and permissions", **where
            )
        if _is_distrust(error):
            return MisconfiguredError(
                "the broker's certificate is not trusted; check ca_file", **where
            )
        if name == "_SSL":
            return MisconfiguredError("no TLS with the broker; check security and files", **where)
        if name in {"_ALL_BROKERS_DOWN", "_TRANSPORT", "_RESOLVE", "_TIMED_OUT"}:
            return UnreachableError(
                f"no broker answers ({name}); if it runs, check security, login and certificate",
                **where,
            )
        if error.retriable() or error.fatal() or name in _PASSING:
            return UpstreamFailedError(f"the cluster did not do it ({name})", **where)
        return PermanentError(f"the cluster refused ({name})", **where)


_PASSING = {
    "_MAX_POLL_EXCEEDED",
    "_STATE",
    "_WAIT_COORD",
    "_ASSIGNMENT_LOST",
    "COORDINATOR_NOT_AVAILABLE",
    "NOT_COORDINATOR",
    "REBALANCE_IN_PROGRESS",
}


def _is_distrust(error: KafkaError) -> bool:
    # librdkafka reports it under varying error codes
    return "certificate verify failed" in error.str()


def _tells_why(error: KafkaError) -> bool:
    return error.name() in {"_SSL", "_AUTHENTICATION"} or _is_distrust(error)


def _exception(error: KafkaError) -> Exception:
    from confluent_kafka import KafkaException

    return KafkaException(error)


def _silence() -> Any:
    """Return a logger that discards everything: errors that matter are raised."""
    import logging

    logger = logging.getLogger("librdkafka")
    logger.setLevel(logging.CRITICAL)
    return logger


def _text(value: bytes | str | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
