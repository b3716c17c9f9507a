"""Leases on rows, with tokens and with owners only, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Engine, Integer, MetaData, Row, String, Table, select

from blocks.errors import LeaseLostError
from tasks.core.state.database import insert_or_ignore, open_database, writing
from tasks.core.state.leases import Leases
from tasks.core.state.tables import Instant

JOBS = Table(
    "jobs_of_lease_tests",
    MetaData(),
    Column("name", String(20), primary_key=True),
    Column("owner", String(20)),
    Column("token", Integer, nullable=False),
    Column("lease_until_at", Instant, nullable=False),
    Column("done_by", String(20)),
)
SHIFTS = Table(
    "shifts_of_lease_tests",
    MetaData(),
    Column("name", String(20), primary_key=True),
    Column("owner", String(20), nullable=False),
    Column("lease_until_at", Instant, nullable=False),
)
LEASE_S = 60


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = datetime(2026, 7, 23, 17, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Store:
    """One row under lease."""

    def __init__(self, engine: Engine, table: Table, clock: Clock) -> None:
        self.engine = engine
        self.clock = clock
        self.leases = Leases(
            key=table.c.name,
            lease_s=LEASE_S,
            clock=clock,
            system="jobs",
            operation="work",
            lost="another took it over",
        )

    def acquire(self, owner: str | None, *, is_free: bool = False) -> Row[Any] | None:
        with writing(self.engine) as connection:
            new = {"name": "a", "owner": owner} if owner else {"name": "a"}
            row = self.leases.find_or_insert(connection, new)
            return self.leases.acquire(connection, row, owner=owner, is_free=is_free)

    def renew(self, proof: int | str, **values: Any) -> None:
        with writing(self.engine) as connection:
            self.leases.renew(connection, "a", proof, **values)

    def release(self, proof: int | str) -> bool:
        with writing(self.engine) as connection:
            return self.leases.release(connection, "a", proof)

    def row(self) -> Row[Any]:
        with self.engine.connect() as connection:
            return connection.execute(select(self.leases.table)).one()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(state_database):
    for table in (JOBS, SHIFTS):
        table.create(state_database)
    yield state_database
    for table in (JOBS, SHIFTS):
        table.drop(state_database)


@pytest.fixture
def jobs(engine, clock) -> Store:
    return Store(engine, JOBS, clock)


@pytest.fixture
def shifts(engine, clock) -> Store:
    return Store(engine, SHIFTS, clock)


def test_a_lease_keeps_others_away_until_it_has_run_out(jobs, clock):
    """Others get it from the instant on at which it runs out, and not before."""
    first = jobs.acquire("first")
    clock.now += timedelta(seconds=LEASE_S - 1)
    assert jobs.acquire("second") is None
    clock.now += timedelta(seconds=1)
    assert (first.token, jobs.acquire("second").token) == (1, 2)


def test_the_owner_takes_again_what_it_has(jobs):
    """A retried run goes on at once, under a new token."""
    assert [jobs.acquire("first").token, jobs.acquire("first").token] == [1, 2]


def test_without_an_owner_nobody_takes_a_row_twice(jobs):
    """A lease without an owner keeps even its own holder away."""
    assert jobs.acquire(None) is not None
    assert jobs.acquire(None) is None


def test_a_store_may_declare_a_lease_void(jobs):
    """What its state says is free is leased, whatever the lease says."""
    jobs.acquire("first")
    assert jobs.acquire("second", is_free=True).owner == "second"


def test_renewing_keeps_others_away_for_another_lease(jobs, clock):
    """The new lease counts from the renewal."""
    lease = jobs.acquire("first")
    clock.now += timedelta(seconds=LEASE_S - 1)
    jobs.renew(lease.token)
    clock.now += timedelta(seconds=LEASE_S - 1)
    assert jobs.acquire("second") is None


def test_a_lease_that_ran_out_still_writes_while_nobody_took_it(jobs, clock):
    """Only another lease ends the right to write."""
    lease = jobs.acquire("first")
    clock.now += timedelta(seconds=2 * LEASE_S)
    jobs.renew(lease.token, done_by="first")
    assert jobs.row().done_by == "first"


def test_a_late_holder_changes_nothing_and_is_told(jobs, clock):
    """The token of a lease that was taken over writes nothing any more."""
    late = jobs.acquire("late")
    clock.now += timedelta(seconds=LEASE_S)
    jobs.acquire("second")
    before = jobs.row()
    with pytest.raises(LeaseLostError, match="another took it over"):
        jobs.renew(late.token, done_by="late")
    assert not jobs.release(late.token)
    assert jobs.row() == before


def test_the_token_of_an_earlier_attempt_is_late_too(jobs):
    """The same owner's earlier attempt may still be alive somewhere."""
    earlier = jobs.acquire("first")
    jobs.acquire("first")
    with pytest.raises(LeaseLostError):
        jobs.renew(earlier.token)


def test_what_is_released_is_free_at_once(jobs):
    """The next one need not wait for the lease to run out."""
    assert jobs.release(jobs.acquire("first").token)
    assert jobs.acquire("second").token == 2


def test_without_tokens_the_owner_is_the_proof(shifts, clock):
    """A table that has no tokens refuses an owner that was replaced."""
    shifts.acquire("first")
    shifts.renew("first")
    clock.now += timedelta(seconds=LEASE_S)
    shifts.acquire("second")
    with pytest.raises(LeaseLostError):
        shifts.renew("first")


@pytest.mark.parametrize("is_there", [False, True])
def test_of_many_takers_at_once_one_gets_it(jobs, is_there):
    """Whether the row is there already or not; tokens are given out once."""
    if is_there:
        jobs.release(jobs.acquire("before").token)
    takers = [f"run {n}" for n in range(8)]
    start = Barrier(len(takers))

    def take(owner: str) -> Row[Any] | None:
        start.wait()
        return jobs.acquire(owner)

    with ThreadPoolExecutor(len(takers)) as pool:
        leased = [row for row in pool.map(take, takers) if row is not None]
    assert [row.token for row in leased] == [1 + is_there]
    assert jobs.row().owner == leased[0].owner


def test_a_row_that_is_being_taken_is_waited_for(jobs):
    """Who comes between another's look and its lease finds the row leased."""
    jobs.release(jobs.acquire("before").token)
    with ThreadPoolExecutor(1) as pool:
        with writing(jobs.engine) as connection:
            row = jobs.leases.find(connection, JOBS.c.name == "a")
            second = pool.submit(jobs.acquire, "second")
            wait([second], timeout=1)  # as long as it would need if nothing kept it
            first = jobs.leases.acquire(connection, row, owner="first")
        assert (first.token, second.result()) == (2, None)


def test_inserting_says_whether_the_row_is_new(engine, clock):
    """What is there stays as it is."""
    row = {"name": "a", "token": 0, "lease_until_at": clock()}
    with writing(engine) as connection:
        assert insert_or_ignore(connection, JOBS, row)
        assert not insert_or_ignore(connection, JOBS, row | {"token": 7})
        assert connection.execute(select(JOBS.c.token)).scalars().all() == [0]


OWNERS = st.sampled_from(["red", "green", "blue"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["acquire", "renew", "release"]), OWNERS)
    | st.tuples(st.just("wait"), st.integers(1, LEASE_S)),
    max_size=25,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_only_the_latest_lease_writes_whatever_happens(tmp_path, steps):
    """In any order of steps: as a model of who has it, until when and under which token."""
    clock = Clock()
    engine = open_database(f"sqlite:///{tmp_path / 'state.db'}")
    JOBS.drop(engine, checkfirst=True)
    JOBS.create(engine)
    jobs = Store(engine, JOBS, clock)
    tokens: dict[str, int] = {}
    latest, holder, until = 0, "", clock()
    for step, who in steps:
        if step == "wait":
            clock.now += timedelta(seconds=who)
        elif step == "acquire":
            row = jobs.acquire(who)
            assert (row is not None) == (until <= clock() or holder == who)
            if row is not None:
                assert row.token == latest + 1
                tokens[who], latest, holder = row.token, row.token, who
                until = clock() + timedelta(seconds=LEASE_S)
        elif who in tokens:
            is_latest = tokens[who] == latest
            if step == "release":
                assert jobs.release(tokens[who]) == is_latest
            elif is_latest:
                jobs.renew(tokens[who], done_by=who)
            else:
                with pytest.raises(LeaseLostError):
                    jobs.renew(tokens[who], done_by=who)
                assert jobs.row().token == latest
            if is_latest:
                is_renewed = step == "renew"
                until = clock() + timedelta(seconds=LEASE_S) if is_renewed else clock()
    engine.dispose()
