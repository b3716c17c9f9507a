"""Decides what an outcome or an error means for a delivery: done, retry or dead letter."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from blocks.errors import IntegrationError, TransientError
from tasks.core.intake.inbox.delivery import Delivery, Outcome
from tasks.core.intake.inbox.reply import Reply

_MAX_REASON_CHARS = 2000

Status = Literal["done", "ignored", "failed", "dead_letter", "cancelled", "handed over"]


def in_words(status: str) -> str:
    """A status as messages say it: "3 dead-lettered"."""
    return "dead-lettered" if status == "dead_letter" else status


@dataclass(frozen=True, slots=True)
class Settlement:
    """How handling a leased delivery ended, to be written to the inbox.

    Attributes:
        delivery: As it was leased.
        status: "failed" is tried again at `retry_at`, "dead_letter" only if somebody replays.
        reason: What the operator reads.
        retry_at: Aware UTC instant; only of a failed one.
        integration: Who takes it on; only of one that is handed over.
        reply: What the caller gets who waits for it.
        error: Why it failed or is dead-lettered, if an error is the reason.
    """

    delivery: Delivery
    status: Status
    reason: str = ""
    retry_at: datetime | None = None
    integration: str | None = None
    reply: Reply | None = None
    error: IntegrationError | None = None

    def __post_init__(self) -> None:
        # A reason may quote what was received: NUL and lone surrogates cannot be stored.
        storable = self.reason.encode(errors="replace").decode().replace("\0", "?")
        object.__setattr__(self, "reason", storable[:_MAX_REASON_CHARS])

    @property
    def is_failure(self) -> bool:
        """The run that handled it has to say so."""
        return self.status in ("failed", "dead_letter")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a delivery that failed transiently is tried again.

    Attributes:
        max_attempts: After this many it is dead-lettered.
        first_delay_s: Before the second attempt; doubles with each further one.
        max_delay_s: The longest wait, unless the other side asked for a longer one.
    """

    max_attempts: int = 8
    first_delay_s: float = 15.0
    max_delay_s: float = 3600.0

    def delay_s(self, attempt: int, *, jitter: float) -> float:
        """Seconds to wait after the given attempt.

        Args:
            attempt: Counted from 1.
            jitter: 0 to 1; spreads what failed together over half of the wait.
        """
        # the exponent is bounded: 2.0 ** 1024 overflows
        longest = min(self.first_delay_s * 2.0 ** min(attempt - 1, 64), self.max_delay_s)
        return longest * (1 - jitter / 2)


def settle_outcome(delivery: Delivery, outcome: Outcome | None) -> Settlement:
    """What the handler returned."""
    if outcome is None:
        return Settlement(delivery, "done")
    return Settlement(
        delivery,
        outcome.status,  # type: ignore[arg-type] # made by the functions beside Outcome
        outcome.message,
        integration=outcome.integration,
        reply=outcome.reply,
    )


def settle_error(
    delivery: Delivery,
    error: IntegrationError,
    policy: RetryPolicy,
    *,
    now: datetime,
    jitter: Callable[[], float] = random.random,
) -> Settlement:
    """What an error of the handler means.

    A transient one is tried again until the attempts are used up; any other is dead-lettered at
    once, since the same call would fail again.
    """
    if not isinstance(error, TransientError):
        return Settlement(delivery, "dead_letter", str(error), error=error)
    if delivery.attempt >= policy.max_attempts:
        reason = f"gave up after {delivery.attempt} attempts: {error}"
        return Settlement(delivery, "dead_letter", reason, error=error)
    delay_s = max(policy.delay_s(delivery.attempt, jitter=jitter()), error.retry_after_s or 0.0)
    retry_at = now + timedelta(seconds=delay_s)
    return Settlement(delivery, "failed", str(error), retry_at=retry_at, error=error)


def settle_crashes(delivery: Delivery, policy: RetryPolicy) -> Settlement | None:
    """Park a delivery whose attempts were all used up by processes that died; else None."""
    if delivery.attempt <= policy.max_attempts:
        return None
    return Settlement(
        delivery,
        "dead_letter",
        f"{policy.max_attempts} attempts ended without an outcome: each time the process that "
        "handled it died (out of memory?); look at its payload before a replay",
    )
