"""Messages of a NATS JetStream stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
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
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js.client import JetStreamContext

_FLUSH_TIMEOUT_S = 5
_AT_ONCE_S = 0.02  # the server must answer


class JetStreamConsumer:
    """A durable pull consumer, created if missing; any number of processes may share it.

    A message's identity is stream, sequence number and the instant it was stored.

    Args:
        connect: Returns a connection that does not reconnect by itself.
        system: The server, for errors.
        stream: The stream's name; it exists already.
        durable: The consumer's name.
        subject: Receives only messages of this subject; may have wildcards. None for all.
        ack_wait_s: Seconds until an unacknowledged message is redelivered; extended by `hold`.
            An existing consumer keeps its own value.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Client]],
        *,
        system: str,
        stream: str,
        durable: str,
        subject: str | None = None,
        ack_wait_s: float = 30.0,
    ) -> None:
        self._connect = connect
        self._system = f"{system}/{stream}"
        self._stream = stream
        self._durable = durable
        self._subject = subject
        self._ack_wait_s = ack_wait_s
        self._client: Client | None = None
        self._subscription: JetStreamContext.PullSubscription | None = None

    @property
    def system(self) -> str:
        """Name of the server and the stream in errors."""
        return self._system

    @property
    def reads_ahead(self) -> bool:
        """True: more may be received while earlier messages are being stored."""
        return True

    async def open(self) -> None:
        """Connect and bind to the consumer."""
        from nats.js.api import AckPolicy, ConsumerConfig

        async with self._asking("connect", timeout_s=None):  # it has its own timeout
            self._client = await self._connect()
        async with self._asking("connect"):
            context = self._client.jetstream()
            # AckPolicy.ALL would lose messages when several processes share the consumer
            self._subscription = await context.pull_subscribe(
                self._subject or "",
                durable=self._durable,
                stream=self._stream,
                config=ConsumerConfig(
                    ack_policy=AckPolicy.EXPLICIT, ack_wait=self._ack_wait_s, max_ack_pending=10_000
                ),
            )

    async def receive(self, limit: int, *, wait_s: float) -> list[Message]:
        """Pull the messages that are there."""
        assert self._subscription is not None, "open first"  # noqa: S101
        async with self._asking("receive", timeout_s=wait_s + ANSWER_TIMEOUT_S):
            if self._client is None or not self._client.is_connected:
                raise ConnectionResetError
            try:
                found = await self._subscription.fetch(limit, timeout=max(wait_s, _AT_ONCE_S))
            except TimeoutError:
                return []
            return [self._message(each) for each in found]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Acknowledge each, and make sure that the server has read the acknowledgements."""
        assert self._client is not None, "open first"  # noqa: S101
        async with self._asking("acknowledge"):
            for message in messages:
                await message.receipt.ack()
            await self._client.flush(timeout=_FLUSH_TIMEOUT_S)

    async def hold(self, messages: Sequence[Message]) -> None:
        """Restart the time until redelivery."""
        async with self._asking("hold"):
            for message in messages:
                await message.receipt.in_progress()

    async def give_back(self, messages: Sequence[Message]) -> None:
        """Request immediate redelivery."""
        assert self._client is not None, "open first"  # noqa: S101
        async with self._asking("give back"):
            for message in messages:
                await message.receipt.nak()
            await self._client.flush(timeout=_FLUSH_TIMEOUT_S)

    async def lag(self) -> int | None:
        """Return how many messages of the stream the consumer has not delivered yet."""
        assert self._subscription is not None, "open first"  # noqa: S101
        async with self._asking("look"):
            return (await self._subscription.consumer_info()).num_pending

    async def close(self) -> None:
        """Close the connection."""
        client, self._client, self._subscription = self._client, None, None
        if client is not None:
            with contextlib.suppress(Exception):  # the connection may be dead already
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await client.close()

    def _message(self, message: Msg) -> Message:
        metadata = message.metadata
        headers = list((message.headers or {}).items())
        stored = int(metadata.timestamp.timestamp() * 1_000_000)
        return Message(
            subject=message.subject,
            body=message.data,
            receipt=message,
            # the instant tells a stream from a deleted one of the same name
            identity=f"{metadata.stream}:{metadata.sequence.stream}:{stored}",
            headers=headers,
            content_type=(message.headers or {}).get("Content-Type", ""),
        )

    @contextlib.asynccontextmanager
    async def _asking(
        self, operation: str, *, timeout_s: float | None = ANSWER_TIMEOUT_S
    ) -> AsyncIterator[None]:
        from nats.errors import Error

        try:
            async with asyncio.timeout(timeout_s):
                yield
        except IntegrationError:
            raise
        except (Error, OSError) as exc:  # TimeoutError is an OSError
            raise self._mapped(exc, operation) from exc

    def _mapped(self, exc: Exception, operation: str) -> IntegrationError:
        from nats import errors
        from nats.js import errors as js

        where: dict[str, Any] = {"system": self._system, "operation": operation}
        is_refused = isinstance(exc, errors.AuthorizationError | errors.InvalidUserCredentialsError)
        # while connecting, the client reports it as a generic error
        if is_refused or "authorization violation" in str(exc).lower():
            return MisconfiguredError("the server refused the login; check it", **where)
        if isinstance(exc, js.NotFoundError):
            return MisconfiguredError("the stream does not exist; create it first", **where)
        if isinstance(exc, js.BadRequestError):
            return MisconfiguredError(
                "the server refuses the consumer: one with that name and other settings exists; "
                "choose another name, or delete it",
                **where,
            )
        if isinstance(exc, js.ServiceUnavailableError | js.ServerError):
            return UpstreamBusyError("JetStream is not available", **where)
        if isinstance(exc, js.NoStreamResponseError | js.APIError):
            return UpstreamBusyError(f"JetStream did not do it ({type(exc).__name__})", **where)
        if isinstance(exc, errors.BadSubjectError):
            return MisconfiguredError("the subject is invalid", **where)
        if isinstance(exc, OSError | errors.Error):
            return UnreachableError(f"no connection ({type(exc).__name__})", **where)
        return PermanentError(f"the server refused ({type(exc).__name__})", **where)
