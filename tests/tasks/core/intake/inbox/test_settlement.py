"""What outcomes and errors mean for a delivery."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from blocks.errors import BadPayloadError, UpstreamBusyError
from tasks.core.intake.inbox.delivery import Delivery, dead_letter, done, handed_to, ignored
from tasks.core.intake.inbox.settlement import (
    RetryPolicy,
    Settlement,
    settle_crashes,
    settle_error,
    settle_outcome,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
POLICY = RetryPolicy(max_attempts=3, first_delay_s=10, max_delay_s=60)
WHERE = {"system": "own app", "operation": "adjust"}


@pytest.fixture
def delivery():
    return Delivery.sample({}, event="push", integration="orders", id="d")


@pytest.mark.parametrize(
    ("outcome", "status", "is_failure"),
    [
        (None, "done", False),
        (done("2 adjustments"), "done", False),
        (ignored("nothing to do"), "ignored", False),
        (dead_letter("unknown item"), "dead_letter", True),
        (handed_to("returns"), "handed over", False),
    ],
)
def test_outcomes(delivery, outcome, status, is_failure):
    """Each outcome is stored as what it says, and only a dead-lettered one is a failure."""
    settlement = settle_outcome(delivery, outcome)
    assert (settlement.status, settlement.is_failure) == (status, is_failure)
    assert settlement.reason == (outcome.message if outcome else "")


def test_transient_error(delivery):
    """A transient error is tried again after a wait that doubles, spread over its second half."""
    error = UpstreamBusyError("it is busy", **WHERE)
    settlement = settle_error(delivery, error, POLICY, now=NOW, jitter=lambda: 0.0)
    assert settlement.status == "failed"
    assert settlement.retry_at == NOW + timedelta(seconds=10)
    assert settlement.reason == "own app: adjust: it is busy"
    waits = [POLICY.delay_s(attempt, jitter=0) for attempt in (1, 2, 3, 4, 5000)]
    assert waits == [10, 20, 40, 60, 60]
    assert POLICY.delay_s(1, jitter=1) == 5


def test_other_side_asks_for_a_longer_wait(delivery):
    """The wait is never shorter than the other side asked for."""
    error = UpstreamBusyError("it is busy", retry_after_s=500, **WHERE)
    settlement = settle_error(delivery, error, POLICY, now=NOW)
    assert settlement.retry_at == NOW + timedelta(seconds=500)


def test_permanent_error(delivery):
    """A permanent error dead-letters the delivery at once."""
    settlement = settle_error(delivery, BadPayloadError("no sku", **WHERE), POLICY, now=NOW)
    assert (settlement.status, settlement.retry_at) == ("dead_letter", None)


def test_last_attempt():
    """After the last attempt a delivery is dead-lettered, with the number and the last reason."""
    last = Delivery.sample({}, event="push", integration="orders", id="d")
    last = Delivery(**{name: getattr(last, name) for name in last.__slots__} | {"attempt": 3})
    settlement = settle_error(last, UpstreamBusyError("it is busy", **WHERE), POLICY, now=NOW)
    assert settlement.status == "dead_letter"
    assert settlement.reason == "gave up after 3 attempts: own app: adjust: it is busy"
    assert settle_crashes(last, POLICY) is None


def test_deadly_delivery():
    """A delivery that kills every process that handles it is dead-lettered in the end."""
    deadly = Delivery.sample({}, event="push", integration="orders", id="d")
    deadly = Delivery(**{name: getattr(deadly, name) for name in deadly.__slots__} | {"attempt": 4})
    settlement = settle_crashes(deadly, POLICY)
    assert settlement is not None
    assert settlement.status == "dead_letter"
    assert settlement.reason.startswith("3 attempts ended without an outcome")


def test_reason_that_quotes_hostile_input(delivery):
    """A reason holds no character that a database or an API refuses, and is not endless."""
    settlement = Settlement(delivery, "dead_letter", "a\0b\ud800" + "x" * 5000)
    assert settlement.reason[:4] == "a?b?"
    assert len(settlement.reason) == 2000
