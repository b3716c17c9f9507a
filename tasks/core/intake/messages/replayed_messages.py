"""Reads dead-lettered messages that are replayed, as a source like any other."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from tasks.core.connectors.messages.message import Message
from tasks.core.intake.inbox.delivery import Delivery
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.settlement import RetryPolicy, Settlement, settle_crashes
from tasks.core.intake.inbox.store import Inbox
from tasks.core.threads import in_thread

_MOST_AT_ONCE = 500
_CRASHES = RetryPolicy()


class ReplayedMessages:
    """The messages from one endpoint that wait in the inbox; errors are those of `Inbox`.

    A message's identity is its delivery's idempotency key. A message passed to `dead_letter`
    becomes a dead letter again when it is acknowledged. Received messages are leased; `hold`
    extends the lease.

    Args:
        inbox: Where they wait.
        owner: Who leases them, and for how long at a time.
        integration: The integration.
        endpoint: The source that they originally came from.
    """

    def __init__(self, inbox: Inbox, owner: LeaseOwner, *, integration: str, endpoint: str) -> None:
        self._inbox = inbox
        self._owner = owner
        self._integration = integration
        self._endpoint = endpoint
        self._bad: dict[str, str] = {}

    @property
    def system(self) -> str:
        """Name of the original source in errors."""
        return self._endpoint

    @property
    def reads_ahead(self) -> bool:
        """True: more may be leased meanwhile."""
        return True

    async def open(self) -> None:
        """Do nothing: the inbox is open."""

    async def receive(self, limit: int, *, wait_s: float) -> list[Message]:
        """Lease due messages, without waiting; one that killed its process is leased alone."""
        return await in_thread(self._lease, min(limit, _MOST_AT_ONCE))

    async def dead_letter(self, message: Message, reason: str) -> None:
        """Mark it to be dead-lettered again for this reason."""
        self._bad[message.receipt.id] = reason

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Record them as done, or as dead letters again."""
        settlements = [self._settlement(message.receipt) for message in messages]
        await in_thread(self._inbox.settle, settlements)

    async def hold(self, messages: Sequence[Message]) -> None:
        """Extend the leases."""
        await in_thread(self._inbox.extend, _deliveries(messages), self._owner)

    async def give_back(self, messages: Sequence[Message]) -> None:
        """Leave them to the next run."""
        await in_thread(self._inbox.release, _deliveries(messages))

    async def lag(self) -> int | None:
        """Return None: it is not known."""
        return None

    async def close(self) -> None:
        """Do nothing: the caller that opened the inbox closes it."""

    def _lease(self, limit: int) -> list[Message]:
        while True:
            leased = self._inbox.lease(
                self._integration, self._owner, limit=limit, endpoint=self._endpoint
            )
            given_up = [each for delivery in leased if (each := settle_crashes(delivery, _CRASHES))]
            if not given_up:
                return [_message(each) for each in leased]
            self._inbox.settle(given_up)  # leased alone, because its last lease expired

    def _settlement(self, delivery: Delivery) -> Settlement:
        reason = self._bad.pop(delivery.id, None)
        return Settlement(delivery, "done" if reason is None else "dead_letter", reason or "")


def _deliveries(messages: Sequence[Message]) -> list[Delivery]:
    return [message.receipt for message in messages]


def _message(delivery: Delivery) -> Message:
    return Message(
        subject=delivery.event,
        body=delivery.body,
        receipt=delivery,
        identity=delivery.idempotency_key,
        key=delivery.ordering_key,
        headers=[(name, value) for name, value in orjson.loads(delivery.raw_headers)],
        content_type=delivery.content_type,
        content=delivery.payload,
    )
