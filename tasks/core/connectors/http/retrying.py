"""Decides which failures of a call are retried, how soon and how often."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import tenacity

from blocks.errors import TransientError
from tasks.core import threads

_IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits for the attempts at one call.

    Attributes:
        max_attempts: Including the first one.
        first_wait_s: Doubled after each failure, plus up to the same again at random.
        max_wait_s: Longest wait of our own.
        max_retry_after_s: Longest wait the other side may ask for; a longer one fails the call
            at once, so that it does not block a worker.
    """

    max_attempts: int = 4
    first_wait_s: float = 0.5
    max_wait_s: float = 30
    max_retry_after_s: float = 60

    def retrying(
        self,
        *,
        sleep: Callable[[float], None] = threads.sleep,
        before_wait: Callable[[BaseException, float, int], None],
    ) -> tenacity.Retrying:
        """Call a function until it succeeds, fails for good or the attempts are used up.

        Args:
            sleep: Waits for that many seconds.
            before_wait: Called with the failure, the wait in seconds and the attempt's number.
        """

        def tell(state: tenacity.RetryCallState) -> None:
            before_wait(_failure(state), state.upcoming_sleep, state.attempt_number)

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._is_worth_it),
            stop=tenacity.stop_after_attempt(self.max_attempts),
            wait=self._wait_s,
            sleep=sleep,
            before_sleep=tell,
            reraise=True,
        )

    def _is_worth_it(self, error: BaseException) -> bool:
        return isinstance(error, TransientError) and (
            error.retry_after_s is None or error.retry_after_s <= self.max_retry_after_s
        )

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        asked = getattr(_failure(state), "retry_after_s", None)
        if asked is not None:
            return float(asked)
        jitter_s = random.uniform(0, self.first_wait_s)
        backoff_s: float = self.first_wait_s * 2 ** (state.attempt_number - 1)
        return min(backoff_s + jitter_s, self.max_wait_s)


def is_repeatable(method: str, idempotency_key: str | None) -> bool:
    """Return whether doing it twice has the effect of doing it once.

    Source: RFC 9110 §9.2.2; draft-ietf-httpapi-idempotency-key-header.
    """
    return idempotency_key is not None or method.upper() in _IDEMPOTENT


def _failure(state: tenacity.RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    assert error is not None  # noqa: S101 - tenacity asks only after failures here
    return error
