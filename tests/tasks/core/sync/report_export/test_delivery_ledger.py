"""The record of deliveries, on both databases."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine

from blocks.errors import LeaseLostError
from tasks.core.state.database import open_database
from tasks.core.sync.report_export.delivery_ledger import (
    AlreadyDelivered,
    DeliveryBusy,
    DeliveryLease,
    DeliveryLedger,
    Receipt,
)

RECEIPT = Receipt("sales.csv", 12, "ab" * 32, "sftp://partner/sales.csv")
WEEK = "20260716T170000Z--20260723T170000Z"


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = datetime(2026, 7, 23, 17, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def run(state_database, clock):
    def of(owner: str) -> DeliveryLedger:
        return DeliveryLedger(state_database, owner=owner, lease_s=60, clock=clock)

    return of


def taken(deliveries: DeliveryLedger, destination: str = "partner", **options) -> DeliveryLease:
    lease = deliveries.lease("sales", WEEK, destination, **options)
    assert isinstance(lease, DeliveryLease)
    return lease


def test_a_delivered_report_is_not_delivered_again(run):
    """Neither the same run nor another one gets it, and both learn what arrived and when."""
    run("a").settle(taken(run("a")), RECEIPT)
    for owner in ("a", "b"):
        found = run(owner).lease("sales", WEEK, "partner")
        assert isinstance(found, AlreadyDelivered)
        assert (found.receipt, found.revision) == (RECEIPT, 1)
    assert run("b").delivered("sales", WEEK) == {"partner": RECEIPT}


def test_a_retry_delivers_only_what_failed(run):
    """After a failure at the third destination the first two are done, the third goes on."""
    for destination in ("one", "two"):
        run("a").settle(taken(run("a"), destination), RECEIPT)
    run("a").release(taken(run("a"), "three"), reason="disk full")
    again = [run("a").lease("sales", WEEK, name) for name in ("one", "two", "three")]
    assert [type(found) for found in again] == [AlreadyDelivered, AlreadyDelivered, DeliveryLease]
    assert again[2].attempt == 2
    assert not again[2].uncertain


def test_another_period_report_or_destination_is_another_delivery(run):
    """The three together tell deliveries apart."""
    run("a").settle(taken(run("a")), RECEIPT)
    assert isinstance(run("a").lease("sales", "next", "partner"), DeliveryLease)
    assert isinstance(run("a").lease("stock", WEEK, "partner"), DeliveryLease)
    assert isinstance(run("a").lease("sales", WEEK, "other"), DeliveryLease)


def test_replacing_makes_a_new_revision_once_a_run(run):
    """Another run replaces what is there; its own retry does not replace it a second time."""
    first = taken(run("a"))
    run("a").settle(first, RECEIPT)
    second = taken(run("b"), replace=True)
    assert (second.revision, second.attempt, second.previous) == (2, 1, RECEIPT)
    assert second.key != first.key
    run("b").settle(second, RECEIPT._replace(size=13))
    found = run("b").lease("sales", WEEK, "partner", replace=True)
    assert isinstance(found, AlreadyDelivered)
    assert (found.revision, found.receipt.size) == (2, 13)


def test_an_attempt_keeps_its_key(run, clock):
    """What must look the same to the other side is the same in every attempt."""
    first = taken(run("a"))
    run("a").release(first, reason="busy")
    clock.now += timedelta(hours=1)
    assert taken(run("b")).key == first.key


def test_a_run_that_died_leaves_an_uncertain_lease(run, clock):
    """Its own retry at once, or another run once the lease is over, is told to look first."""
    dead = taken(run("a"))
    assert not dead.uncertain
    assert isinstance(run("b").lease("sales", WEEK, "partner"), DeliveryBusy)
    again = taken(run("a"))
    assert again.uncertain
    clock.now += timedelta(seconds=61)
    assert taken(run("b")).uncertain
    for lease in (dead, again):
        with pytest.raises(LeaseLostError):
            run("a").settle(lease, RECEIPT)


def test_uncertainty_lasts_until_it_arrives(run):
    """One unclear attempt is not forgotten because a later one failed clearly."""
    run("a").release(taken(run("a")), reason="no answer", uncertain=True)
    run("a").release(taken(run("a")), reason="refused")
    lease = taken(run("a"))
    assert lease.uncertain
    run("a").settle(lease, RECEIPT)
    assert not taken(run("b"), replace=True).uncertain


def test_of_many_runs_one_gets_it(state_database):
    """However many start at the same moment, one claim is given out."""
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(
                lambda i: DeliveryLedger(state_database, owner=f"run-{i}").lease(
                    "sales", WEEK, "x"
                ),
                range(8),
            )
        )
    assert sum(isinstance(one, DeliveryLease) for one in found) == 1
    assert sum(isinstance(one, DeliveryBusy) for one in found) == 7


class Runs(RuleBasedStateMachine):
    """Runs claim, die, fail, settle and replace in any order."""

    engine: ClassVar[Engine]

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.destination = uuid.uuid4().hex
        self.leases: list[tuple[str, DeliveryLease]] = []
        self.settled: list[int] = []

    def of(self, owner: str) -> DeliveryLedger:
        return DeliveryLedger(self.engine, owner=owner, lease_s=60, clock=self.clock)

    @rule(owner=st.sampled_from("ab"), replace=st.booleans())
    def lease(self, owner: str, replace: bool) -> None:
        found = self.of(owner).lease("sales", WEEK, self.destination, replace=replace)
        if isinstance(found, DeliveryLease):
            self.leases.append((owner, found))

    @rule(data=st.data(), arrives=st.booleans())
    def end(self, data, arrives: bool) -> None:
        if not self.leases:
            return
        owner, lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        try:
            if arrives:
                self.of(owner).settle(lease, RECEIPT)
            else:
                self.of(owner).release(lease, reason="x")
        except LeaseLostError:
            return
        if arrives:
            self.settled.append(lease.revision)

    @rule()
    def wait(self) -> None:
        self.clock.now += timedelta(seconds=61)

    @invariant()
    def each_revision_settles_once(self) -> None:
        assert self.settled == list(range(1, len(self.settled) + 1))


def test_no_order_of_events_delivers_twice(migrated_sqlite, tmp_path):
    """Whatever happens in which order, each revision arrives once, and in order."""
    (tmp_path / "state.db").write_bytes(migrated_sqlite.read_bytes())
    engine = open_database(f"sqlite:///{tmp_path / 'state.db'}")
    on_this = type("OnThis", (Runs,), {"engine": engine})
    limits = settings(
        max_examples=40,
        stateful_step_count=15,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(on_this, settings=limits)
    engine.dispose()
