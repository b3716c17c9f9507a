"""The one small protocol behind which every queue, topic and mailbox looks the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

ANSWER_TIMEOUT_S = 10.0
"""Seconds without an answer after which a source is out of reach, where no setting says so."""

CLOSE_TIMEOUT_S = 3.0
"""Seconds that taking leave of a source may take; it is left without a word then."""


class Message(NamedTuple):
    """One message as its source handed it over.

    Attributes:
        subject: Where it was sent: topic, queue, routing key, subject or folder.
        body: The raw bytes.
        receipt: By which the source knows it; nobody else looks inside.
        identity: The source's own name for it, the same when it is handed over again; None
            where the source has none.
        key: What the source orders by: messages with the same key are in order.
        headers: Names and values, in order.
        content_type: Of the body; "" where the source does not say.
        content: The event as JSON, where the body only wraps it; None where the body is it.
        defect: Why nobody can read it, if the source noticed: it is to be kept, but not handled.
        refusal: Why it is none of ours, if the source noticed: it is not to be kept.
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
    """A place that messages are taken from. A new kind costs one class with these methods.

    Third-party errors leave as the tree of `blocks.errors`; after one, `close` and `open` begin
    anew, and what was not acknowledged is handed over again. Used by one task at a time.

    No call waits for ever: a source that does not answer is unreachable after a while. A call that
    is cancelled ends at once; only `close` may follow.
    """

    @property
    def system(self) -> str:
        """What errors call this place, e.g. "amqp://rabbit.example/orders"; no secrets."""
        ...

    @property
    def reads_ahead(self) -> bool:
        """Whether more may be received while what was given is not acknowledged yet."""
        ...

    async def open(self) -> None:
        """Connect and subscribe.

        Raises:
            MisconfiguredError: Wrong credentials, or the queue does not exist.
            UnreachableError: It does not answer.
        """
        ...

    async def receive(self, limit: int, *, wait_s: float) -> list[Message]:
        """Take what is there, at once if anything is, else wait for a while.

        Args:
            limit: At most so many messages.
            wait_s: How long to wait for the first; 0 for what can be had at once.

        Returns:
            Messages in the order of the source; empty when none came.
        """
        ...

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Tell that these are stored: the source may forget them."""
        ...

    async def hold(self, messages: Sequence[Message]) -> None:
        """Tell, every few seconds, that these are still worked on and nothing else is wanted."""
        ...

    async def give_back(self, messages: Sequence[Message]) -> None:
        """Have these handed over again, soon, to whoever asks."""
        ...

    async def lag(self) -> int | None:
        """How many messages wait at the source; None where it does not tell."""
        ...

    async def close(self) -> None:
        """Disconnect, within `CLOSE_TIMEOUT_S`; never raises, and may be called at any time."""
        ...
