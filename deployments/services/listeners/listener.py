"""The loop of every source: receive messages, store them, and only then acknowledge them.

    open ──► receive ──► decode ──► store ──► acknowledge ──┐
      ▲         ▲                     │ inbox full or down: hold, try again
      │         └─────────────────────┴─────────────────────┘
      └── any error of the source: close, wait longer each time, start again

While one batch is being stored, the next is received already, if the source allows it. A message
that was stored but not acknowledged is redelivered and is then a duplicate. Nothing is ever
dropped: unreadable messages are stored as dead letters.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from blocks.errors import IntegrationError, PermanentError
from deployments.services.listeners.status import SourceStatus
from tasks.core.connectors.messages.message import Message, MessageSource
from tasks.core.intake.inbox.new_delivery import NewDelivery, StoredDelivery
from tasks.core.intake.messages.reading import MessageReader
from tasks.core.threads import is_cancelled, raise_if_cancelled

_LOG = logging.getLogger(__name__)
_MAX_CALL_BYTES = 16 * 1024 * 1024

T = TypeVar("T")


class Store(Protocol):
    """The signature of `InboxWriter.store`."""

    def __call__(self, deliveries: Sequence[NewDelivery], /) -> Awaitable[list[StoredDelivery]]:
        """Store all or none on disk."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """Batch size, intervals and timeouts of a listener.

    Attributes:
        batch: Most messages received at once.
        poll_s: Seconds that a source may wait for the first message; delays a stop as long.
        first_wait_s: Seconds to wait after an error; doubled each time.
        max_wait_s: The longest such wait.
        hold_every_s: Seconds between calls of `hold` while messages are being stored.
        lag_every_s: Seconds between calls of `lag`.
        finish_s: Seconds after a stop to store and acknowledge received messages.
    """

    batch: int = 500
    poll_s: float = 5.0
    first_wait_s: float = 0.5
    max_wait_s: float = 30.0
    hold_every_s: float = 5.0
    lag_every_s: float = 10.0
    finish_s: float = 10.0


@dataclass(frozen=True, slots=True)
class _Storing:
    """Messages that are being stored, and the task that stores them."""

    messages: Sequence[Message]
    counts: Counter[str]
    task: asyncio.Task[None]


class Listener:
    """Moves the messages of one source into the inbox.

    Args:
        source: Where messages come from.
        reader: Turns them into deliveries.
        store: Stores deliveries.
        notify: Called with the integration's name when something new is stored.
        status: Records the listener's state.
        pace: Batch size, intervals and timeouts.
        monotonic: Monotonic seconds.
    """

    def __init__(
        self,
        source: MessageSource,
        reader: MessageReader,
        *,
        store: Store,
        notify: Callable[[str], None],
        status: SourceStatus,
        pace: Pace = Pace(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._reader = reader
        self._store = store
        self._notify = notify
        self.status = status
        self._pace = pace
        self._monotonic = monotonic
        self._stopping = asyncio.Event()
        self._failures = 0
        self._stage = "connect"
        self._lag_asked_s = float("-inf")

    def stop(self) -> None:
        """Receive no more; `run` ends once received messages are stored and acknowledged.

        That takes as long as the source and the inbox need; cancel it to end at once.
        """
        self._stopping.set()

    async def run(self) -> None:
        """Listen until `stop` is called, whatever happens to the source or the inbox.

        If cancelled, it closes the source and ends: unacknowledged messages are redelivered.
        """
        while not self._stopping.is_set():
            self._stage = "connect"
            try:
                await _heeding(self._source.open())
                await self._listen()
            except IntegrationError as error:
                self._note(error)
            except Exception as bug:  # noqa: BLE001 - one source must not end the others
                _LOG.exception("%s: a bug; it begins anew", self.status.name)
                self.status.note_error(self._stage, _as_error(bug, self._source.system))
            finally:
                self.status.enter("stopped" if self._stopping.is_set() else "out of reach")
                await self._source.close()
            raise_if_cancelled()
            await self._wait()

    async def _listen(self) -> None:
        self.status.enter("listening")
        storing: _Storing | None = None
        try:
            while not self._stopping.is_set() or storing is not None:
                following = await self._receive(storing)
                if storing is not None:
                    await self._hold_until_done(storing, following)
                stored, storing = storing, None
                if following:
                    storing = self._begin_to_store(following)
                if stored is not None:
                    await self._acknowledge(stored)
        finally:
            if storing is not None:
                await self._leave(storing)

    async def _receive(self, storing: _Storing | None) -> list[Message]:
        """Return the next messages; do not wait for any while others are being stored."""
        if self._stopping.is_set() or (storing is not None and not self._source.reads_ahead):
            return []
        self._stage = "receive"
        await self._ask_lag()
        wait_s = 0.0 if storing is not None else self._pace.poll_s
        messages = await _heeding(self._source.receive(self._pace.batch, wait_s=wait_s))
        self._failures = 0
        return messages

    def _begin_to_store(self, messages: list[Message]) -> _Storing:
        counts: Counter[str] = Counter()
        return _Storing(messages, counts, asyncio.create_task(self._store_all(messages, counts)))

    async def _hold_until_done(self, storing: _Storing, following: Sequence[Message]) -> None:
        """Hold all messages at the source until they are stored; receive no others."""
        held = [*storing.messages, *following]
        metric = self.status.metrics.held.labels(self.status.name)
        metric.set(len(held))
        try:
            while not (await asyncio.wait({storing.task}, timeout=self._pace.hold_every_s))[0]:
                self._stage = "receive"
                await _heeding(self._source.hold(held))
            self._stage = "store"
            storing.task.result()
        finally:
            metric.set(0)

    async def _leave(self, storing: _Storing) -> None:
        """Stop storing after a failure; notify if anything new was stored."""
        if not is_cancelled():
            await asyncio.wait({storing.task}, timeout=self._pace.hold_every_s)
        storing.task.cancel()
        await asyncio.wait({storing.task})
        if not storing.task.cancelled():
            storing.task.exception()  # logged already
        if storing.counts["new"]:
            self._notify(self.status.integration)

    async def _acknowledge(self, stored: _Storing) -> None:
        if stored.counts["new"]:
            self._notify(self.status.integration)
        self._stage = "acknowledge"
        await _heeding(self._source.acknowledge(stored.messages))
        self.status.note_messages(+stored.counts)

    async def _store_all(self, messages: Sequence[Message], counts: Counter[str]) -> None:
        deliveries = await self._patiently(lambda: self._read(messages))
        for chunk in _chunks(deliveries):
            stored = await self._patiently(lambda c=chunk: self._store(c))  # type: ignore[misc]
            for delivery, result in zip(chunk, stored, strict=True):
                counts[_outcome(delivery, result)] += 1
        counts["refused"] = len(messages) - len(deliveries)

    async def _read(self, messages: Sequence[Message]) -> list[NewDelivery]:
        received_at = datetime.now(UTC)
        return [
            await self._reader.delivery(message, received_at=received_at)
            for message in messages
            if message.refusal is None
        ]

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Retry until it succeeds."""
        wait_s = self._pace.first_wait_s
        while True:
            try:
                result = await _heeding(attempt())
            except IntegrationError as error:
                if self._stopping.is_set():
                    raise  # nothing is acknowledged, so all are redelivered
                if self.status.state != "waiting for the inbox":
                    _LOG.warning("%s waits: %s", self.status.name, error)
                self.status.note_error("store", error)
                self.status.enter("waiting for the inbox")
            else:
                self.status.enter("listening")
                return result
            await self._sleep_or_stop(min(wait_s, self._pace.hold_every_s))
            wait_s *= 2

    async def _ask_lag(self) -> None:
        now = self._monotonic()
        if now - self._lag_asked_s >= self._pace.lag_every_s:
            self._lag_asked_s = now
            self.status.note_lag(await _heeding(self._source.lag()))

    def _note(self, error: IntegrationError) -> None:
        if self._failures == 0:  # the others are in the metrics
            _LOG.warning("%s: %s; trying again", self.status.name, error)
        self.status.note_error(self._stage, error)

    async def _wait(self) -> None:
        longest_s = min(self._pace.max_wait_s, self._pace.first_wait_s * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        await self._sleep_or_stop(longest_s * random.uniform(0.5, 1.0))

    async def _sleep_or_stop(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass


async def _heeding(call: Awaitable[T]) -> T:
    """Return a call's result, or raise the cancellation that the call swallowed."""
    result = await call
    raise_if_cancelled()
    return result


def _outcome(delivery: NewDelivery, stored: StoredDelivery) -> str:
    if not stored.is_new:
        return "duplicate"
    return "dead_letter" if delivery.status == "dead_letter" else "new"


def _chunks(deliveries: Sequence[NewDelivery]) -> Iterator[Sequence[NewDelivery]]:
    """Yield pieces that the inbox accepts in one call, because its queue is bounded."""
    begin, size_bytes = 0, 0
    for position, delivery in enumerate(deliveries):
        size_bytes += len(delivery.body) + len(delivery.payload or b"")
        if size_bytes > _MAX_CALL_BYTES and position > begin:
            yield deliveries[begin:position]
            begin, size_bytes = position, len(delivery.body) + len(delivery.payload or b"")
    if begin < len(deliveries):
        yield deliveries[begin:]


def _as_error(bug: Exception, system: str) -> PermanentError:
    return PermanentError(f"a bug ({type(bug).__name__})", system=system, operation="listen")
