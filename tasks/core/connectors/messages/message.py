"""The protocol that every queue, topic and mailbox implements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

ANSWER_TIMEOUT_S = 10.0
"""Seconds without a response after which a source counts as unreachable, by default."""

CLOSE_TIMEOUT_S = 3.0
"""Seconds that an orderly disconnect may take; after that the connection is dropped."""


class Message(NamedTuple):
    """A message as received from its source.

    Attributes:
        subject: Where it was sent: topic, queue, routing key, subject or folder.
        body: The raw bytes.
        receipt: The source's handle for it; opaque to everybody else.
        identity: The source's id for it, the same on redelivery; None where the source has none.
        key: Messages with the same key are in order.
        headers: Names and values, in order.
        content_type: The body's; "" where the source does not say.
        content: The event as JSON, if the body only wraps it; None if the body is the event.
        defect: Why it is unreadable, if the source noticed: it is stored but not handled.
        refusal: Why it is not meant for us, if the source noticed: it is not stored.
    """

    subject: str
    body: bytes
    receipt: Any
    identity: str | None = None
    key: str | None = None
    headers: Sequence[tuple[str, str]] = ()
    content_type: str = ""
    content: bytes | None = None
    defect: str | None = None
    refusal: str | None = None


class MessageSource(Protocol):
    """A source of messages. A new kind of source is one class with these methods.

    Third-party errors are mapped to the tree of `blocks.errors`; after one, `close` and `open`
    start again, and unacknowledged messages are redelivered. Only one task at a time may use it.

    No call waits for ever: a source that does not respond in time is unreachable. A cancelled
    call ends at once; only `close` may follow it.
    """

    @property
    def system(self) -> str:
        """Name of this source in errors, e.g. "amqp://rabbit.example/orders"; no secrets."""
        ...

    @property
    def reads_ahead(self) -> bool:
        """Whether more may be received while earlier messages are still unacknowledged."""
        ...

    async def open(self) -> None:
        """Connect and subscribe.

        Raises:
            MisconfiguredError: Wrong credentials, or the queue does not exist.
            UnreachableError: It does not respond.
        """
        ...

    async def receive(self, limit: int, *, wait_s: float) -> list[Message]:
        """Return the messages that are there, or wait a while for the first.

        Args:
            limit: Most messages to return.
            wait_s: Seconds to wait for the first message; 0 to return at once.

        Returns:
            Messages in the order of the source; empty if none came.
        """
        ...

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Confirm that these are stored: the source may forget them."""
        ...

    async def hold(self, messages: Sequence[Message]) -> None:
        """Keep these reserved while they are being stored; called every few seconds."""
        ...

    async def give_back(self, messages: Sequence[Message]) -> None:
        """Return these to the source for early redelivery to any consumer."""
        ...

    async def lag(self) -> int | None:
        """Return how many messages wait at the source; None if it does not report it."""
        ...

    async def close(self) -> None:
        """Disconnect, within `CLOSE_TIMEOUT_S`; never raises, and may be called at any time."""
        ...
