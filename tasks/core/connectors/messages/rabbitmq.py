"""Messages of a RabbitMQ queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from blocks.errors import (
    IntegrationError,
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamBusyError,
)
from tasks.core.connectors.messages.message import ANSWER_TIMEOUT_S, CLOSE_TIMEOUT_S, Message

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage


class RabbitMqQueue:
    """An existing queue, with the dead-letter exchange it was declared with, if any.

    Messages have an identity if their publisher sets the property `message_id`, as it should.

    Args:
        connect: Returns a connection that does not reconnect by itself.
        system: The broker, for errors.
        queue: The queue's name.
        prefetch: How many messages the broker sends ahead.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[AbstractConnection]],
        *,
        system: str,
        queue: str,
        prefetch: int = 1000,
    ) -> None:
        self._connect = connect
        self._system = f"{system}/{queue}"
        self._queue = queue
        self._prefetch = prefetch
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._arrived: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()

    @property
    def system(self) -> str:
        """Name of the broker and the queue in errors."""
        return self._system

    @property
    def reads_ahead(self) -> bool:
        """True: more may be received while earlier messages are being stored."""
        return True

    async def open(self) -> None:
        """Connect and start consuming."""
        self._arrived = arrived = asyncio.Queue[Any]()
        async with self._asking("connect", timeout_s=None):  # it has its own timeout
            self._connection = await self._connect()
        async with self._asking("connect"):
            self._channel = await self._connection.channel()
            await self._channel.set_qos(prefetch_count=self._prefetch)
            queue = await self._channel.get_queue(self._queue, ensure=True)
            await queue.consume(arrived.put)
        # wakes a waiting receive; nothing can arrive after it
        self._connection.close_callbacks.add(lambda *_: arrived.put_nowait(None))
        self._channel.close_callbacks.add(lambda *_: arrived.put_nowait(None))

    async def receive(self, limit: int, *, wait_s: float) -> list[Message]:
        """Return messages that the broker sent ahead."""
        try:
            async with asyncio.timeout(wait_s):
                found = [await self._arrived.get()]
        except TimeoutError:
            return []
        while len(found) < limit and not self._arrived.empty():
            found.append(self._arrived.get_nowait())
        messages = [self._message(each) for each in found if each is not None]
        if None in found:  # earlier messages can no longer be acknowledged: they are redelivered
            raise UnreachableError(
                "the broker closed the connection or the channel",
                system=self._system,
                operation="receive",
            )
        return messages

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Acknowledge all up to the last: they are stored in the order they were received."""
        if messages:
            async with self._asking("acknowledge"):
                await messages[-1].receipt.ack(multiple=True)

    async def hold(self, messages: Sequence[Message]) -> None:
        """Do nothing: the broker waits once `prefetch` messages are unacknowledged."""

    async def give_back(self, messages: Sequence[Message]) -> None:
        """Requeue them; the queue's delivery limit may dead-letter them instead."""
        async with self._asking("give back"):
            for message in messages:
                await message.receipt.nack(requeue=True)

    async def lag(self) -> int | None:
        """Return the number of messages ready in the queue."""
        assert self._channel is not None, "open first"  # noqa: S101
        async with self._asking("look"):
            found = await self._channel.declare_queue(self._queue, passive=True)
            return found.declaration_result.message_count

    async def close(self) -> None:
        """Close the connection; the broker requeues what is not acknowledged."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):  # the connection may be dead already
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await connection.close()

    def _message(self, message: AbstractIncomingMessage) -> Message:
        return Message(
            subject=message.routing_key or "",
            body=message.body,
            receipt=message,
            identity=message.message_id or None,
            headers=[*_properties(message), *((k, str(v)) for k, v in message.headers.items())],
            content_type=message.content_type or "",
        )

    @contextlib.asynccontextmanager
    async def _asking(
        self, operation: str, *, timeout_s: float | None = ANSWER_TIMEOUT_S
    ) -> AsyncIterator[None]:
        from aiormq.exceptions import AMQPError
        from pamqp.exceptions import PAMQPException

        try:
            async with asyncio.timeout(timeout_s):
                yield
        except IntegrationError:
            raise
        except (AMQPError, PAMQPException, OSError, RuntimeError) as exc:
            raise self._mapped(exc, operation) from exc

    def _mapped(self, exc: Exception, operation: str) -> IntegrationError:
        from aiormq import exceptions as amqp

        where: dict[str, Any] = {"system": self._system, "operation": operation}
        if isinstance(exc, amqp.AuthenticationError | amqp.ProbableAuthenticationError):
            return MisconfiguredError(
                "the broker refused the login; check user and password", **where
            )
        if isinstance(exc, amqp.ChannelNotFoundEntity):
            return MisconfiguredError("the queue does not exist; declare it first", **where)
        if isinstance(exc, amqp.ChannelAccessRefused | amqp.ConnectionNotAllowed):
            return MisconfiguredError(
                "the broker refused access; check permissions and virtual host", **where
            )
        if isinstance(exc, amqp.ChannelLockedResource):
            return UpstreamBusyError("another consumer has exclusive use of the queue", **where)
        if isinstance(exc, amqp.ChannelPreconditionFailed):
            # also after a timeout of unacknowledged messages: a new channel starts afresh
            return UpstreamBusyError("the broker closed the channel", **where)
        if isinstance(exc, OSError | amqp.AMQPConnectionError | amqp.ChannelInvalidStateError):
            return UnreachableError(f"no connection ({type(exc).__name__})", **where)
        if isinstance(exc, amqp.ChannelClosed | amqp.ConnectionClosed | RuntimeError):
            return UnreachableError("the connection was closed", **where)
        return PermanentError(f"the broker refused ({type(exc).__name__})", **where)


def _properties(message: AbstractIncomingMessage) -> Iterator[tuple[str, str]]:
    for name in ("message_id", "correlation_id", "reply_to", "type", "app_id", "timestamp"):
        value = getattr(message, name)
        if value is not None:
            yield name, value.isoformat() if isinstance(value, datetime) else str(value)
