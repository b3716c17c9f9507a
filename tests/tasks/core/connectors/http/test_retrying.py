"""How often and how soon a call is tried again."""

from __future__ import annotations

import pytest

from blocks.errors import IntegrationError, PermanentError, TransientError, UpstreamBusyError
from tasks.core.connectors.http.retrying import RetryPolicy, is_repeatable

WHERE = {"system": "https://api.example", "operation": "GET /orders"}


def outcome_of(policy, errors, fake_time):
    """Run a function that fails with each error in turn, then succeeds."""
    left = list(errors)
    attempts = []

    def fail():
        attempts.append(1)
        if left:
            raise left.pop(0)

    retrying = policy.retrying(sleep=fake_time.sleep, before_wait=lambda *_: None)
    try:
        retrying(fail)
    except IntegrationError as exc:
        return exc, len(attempts)
    return None, len(attempts)


def test_transient_errors_are_tried_again(fake_time):
    """Two transient failures cost two waits and end well."""
    errors = [TransientError("…", **WHERE)] * 2
    assert outcome_of(RetryPolicy(), errors, fake_time) == (None, 3)
    assert len(fake_time.waits) == 2


def test_attempts_are_bounded(fake_time):
    """The last failure is raised as it is."""
    errors = [TransientError(f"{number}", **WHERE) for number in range(9)]
    error, attempts = outcome_of(RetryPolicy(max_attempts=3), errors, fake_time)
    assert (error, attempts) == (errors[2], 3)


def test_permanent_errors_are_not_tried_again(fake_time):
    """A permanent failure ends the call at once."""
    error, attempts = outcome_of(RetryPolicy(), [PermanentError("…", **WHERE)], fake_time)
    assert (type(error), attempts, fake_time.waits) == (PermanentError, 1, [])


def test_waits_double_with_jitter_up_to_a_bound(fake_time):
    """Each wait is between its power of two and one first wait more, and never above the bound."""
    policy = RetryPolicy(max_attempts=6, first_wait_s=1, max_wait_s=5)
    outcome_of(policy, [TransientError("…", **WHERE)] * 5, fake_time)
    for wait, power in zip(fake_time.waits, [1, 2, 4, 8, 16], strict=True):
        assert min(power, 5) <= wait <= min(power + 1, 5)


def test_wait_that_is_asked_for_is_kept(fake_time):
    """Retry-After replaces the backoff, zero too."""
    errors = [UpstreamBusyError("…", retry_after_s=wait, **WHERE) for wait in (0, 42)]
    outcome_of(RetryPolicy(max_retry_after_s=60), errors, fake_time)
    assert fake_time.waits == [0, 42]


def test_too_long_a_wait_ends_the_call(fake_time):
    """A worker is not held for longer than allowed."""
    busy = UpstreamBusyError("…", retry_after_s=61, **WHERE)
    policy = RetryPolicy(max_retry_after_s=60)
    assert outcome_of(policy, [busy], fake_time) == (busy, 1)


@pytest.mark.parametrize(
    ("method", "key", "expected"),
    [
        ("GET", None, True),
        ("put", None, True),
        ("DELETE", None, True),
        ("POST", None, False),
        ("PATCH", None, False),
        ("POST", "batch-1", True),
    ],
)
def test_only_idempotent_requests_are_repeatable(method, key, expected):
    """POST and PATCH may be repeated only with an idempotency key."""
    assert is_repeatable(method, key) is expected
