"""First in, first out per ordering key, on every path that adds or finishes deliveries."""

from __future__ import annotations

import threading
from collections import defaultdict
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tasks.core.intake.inbox.delivery import handed_to
from tasks.core.intake.inbox.operations import DeliveryFilter
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.settlement import Settlement, settle_outcome
from tasks.core.intake.inbox.store import Inbox


def lease(setup, limit=10):
    return setup.inbox.lease("orders", setup.owner, limit=limit)


def finish(setup, deliveries, status="done"):
    setup.inbox.settle([Settlement(each, status) for each in deliveries])


def bodies(deliveries):
    return [each.body.decode() for each in deliveries]


@pytest.fixture
def ordered(new):
    def make(key, ordering_key="customer-1", **changes):
        return new(key, body=key.encode(), ordering_key=ordering_key, **changes)

    return make


async def test_one_of_a_key_at_a_time(setup, ordered):
    """A later delivery of a key is claimable when the earlier one is done, and not before."""
    await setup.store(ordered("a1"), ordered("a2"), ordered("b1", "customer-2"))
    first = lease(setup)
    assert bodies(first) == ["a1", "b1"]
    assert lease(setup) == []
    finish(setup, first)
    assert bodies(lease(setup)) == ["a2"]


async def test_arrival_while_an_earlier_one_is_handled(setup, ordered):
    """A delivery that arrives while another of its key is claimed waits for it."""
    await setup.store(ordered("a1"))
    first = lease(setup)
    await setup.store(ordered("a2"))
    assert lease(setup) == []
    finish(setup, first)
    assert bodies(lease(setup)) == ["a2"]


async def test_failed_one_holds_up_its_key_only(setup, ordered):
    """A failed delivery is retried before later ones of its key; other keys go on."""
    await setup.store(ordered("a1"), ordered("a2"), ordered("b1", "customer-2"))
    first, other = lease(setup)
    setup.inbox.settle(
        [Settlement(first, "failed", retry_at=setup.clock() + timedelta(seconds=60))]
    )
    finish(setup, [other])
    assert lease(setup) == []
    setup.clock.turn(60)
    again = lease(setup)
    assert bodies(again) == ["a1"]
    finish(setup, again)
    assert bodies(lease(setup)) == ["a2"]


@pytest.mark.parametrize("status", ["dead_letter", "ignored"])
async def test_dead_letter_stops_blocking(setup, ordered, status):
    """A dead-lettered or ignored delivery lets the later ones of its key pass."""
    await setup.store(ordered("a1"), ordered("a2"))
    finish(setup, lease(setup), status)
    assert bodies(lease(setup)) == ["a2"]


async def test_lapsed_one_keeps_its_place(setup, ordered):
    """When a claimer dies its delivery is taken over before later ones of its key."""
    await setup.store(ordered("a1"), ordered("a2"))
    lease(setup)
    setup.clock.turn(30)
    assert bodies(lease(setup)) == ["a1"]


async def test_duplicate_of_a_finished_one_blocks_nobody(setup, ordered):
    """A re-sent, long finished delivery in front of a new one of its key does not hold it up."""
    await setup.store(ordered("a1"))
    finish(setup, lease(setup))
    await setup.store(ordered("a1"), ordered("a2"))
    assert bodies(lease(setup)) == ["a2"]


async def test_handed_over_in_turn(setup, ordered):
    """Handing a delivery over frees its key here and takes its turn there."""
    await setup.store(
        ordered("a1"), ordered("a2"), ordered("r1", endpoint="/x", integration="returns")
    )
    [first] = lease(setup)
    setup.inbox.settle([settle_outcome(first, handed_to("returns"))])
    assert bodies(lease(setup)) == ["a2"]
    [ahead] = setup.inbox.lease("returns", setup.owner, limit=10)
    assert ahead.body == b"r1"
    finish(setup, [ahead])
    assert bodies(setup.inbox.lease("returns", setup.owner, limit=10)) == ["a1"]


async def test_replayed_one_takes_its_turn(setup, ordered):
    """A replayed delivery waits for the one of its key that is being handled, then goes first."""
    await setup.store(ordered("a1"), ordered("a2"), ordered("a3"))
    first = lease(setup)
    finish(setup, first, "dead_letter")
    second = lease(setup)
    setup.operations.replay(DeliveryFilter(ids=(first[0].id,)), dry_run=False)
    assert lease(setup) == []
    finish(setup, second)
    again = lease(setup)
    assert bodies(again) == ["a1"]
    finish(setup, again)
    assert bodies(lease(setup)) == ["a3"]


async def test_run_retries_dead_letters_of_a_key_in_turn(setup, ordered):
    """A retried run claims its failures of one key one after the other."""
    await setup.store(ordered("a1"), ordered("a2"))
    finish(setup, lease(setup), "dead_letter")
    finish(setup, lease(setup), "dead_letter")
    ids = setup.inbox.unfinished_of_run("run-1")
    again = setup.inbox.lease_again(ids, setup.owner)
    assert bodies(again) == ["a1"]
    finish(setup, again)
    assert bodies(setup.inbox.lease_again(ids[1:], setup.owner)) == ["a2"]


async def test_long_queue_costs_a_lease_nothing(setup, ordered):
    """Of a key with a long queue only the head is ever looked at by a claim."""
    await setup.store(*(ordered(str(i)) for i in range(300)))
    with setup.engine.connect() as connection:
        due = connection.execute(
            text("SELECT count(*) FROM inbox_deliveries WHERE due_at IS NOT NULL")
        ).scalar_one()
    assert due == 1


async def test_concurrent_runs_keep_every_key_in_order(setup, ordered):
    """Whatever runs and gateways do at the same time, each key is handled in order, alone."""
    keys, length = 5, 12
    handled: dict[str, list[int]] = defaultdict(list)
    at_work: dict[str, int] = defaultdict(int)
    overlaps: list[str] = []
    errors: list[Exception] = []
    total = keys * length
    lock = threading.Lock()

    def consume(name: str) -> None:
        inbox = Inbox(setup.engine, clock=setup.clock)
        try:
            while sum(map(len, handled.values())) < total and not errors:
                leased = inbox.lease("orders", LeaseOwner(name, lease_s=600), limit=3)
                with lock:
                    for each in leased:
                        at_work[each.ordering_key] += 1
                        if at_work[each.ordering_key] > 1:
                            overlaps.append(each.ordering_key)
                        handled[each.ordering_key].append(int(each.body))
                with lock:
                    for each in leased:
                        at_work[each.ordering_key] -= 1
                inbox.settle([Settlement(each, "done") for each in leased])
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=consume, args=(f"run-{i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    for i in range(length):
        await setup.store(*(ordered(str(i), f"k{key}", endpoint=f"/{key}") for key in range(keys)))
    for thread in threads:
        thread.join()
    assert not errors
    assert not overlaps
    assert dict(handled) == {f"k{key}": list(range(length)) for key in range(keys)}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.sampled_from("ab"), st.integers(1, 3)),
        st.tuples(st.just("lease"), st.just(""), st.integers(1, 4)),
        st.tuples(
            st.just("settle"),
            st.sampled_from(["done", "failed", "dead_letter", "ignored"]),
            st.integers(0, 3),
        ),
        st.tuples(st.just("release"), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("turn"), st.just(""), st.integers(1, 40)),
        st.tuples(st.just("replay"), st.sampled_from(["done", "dead_letter"]), st.just(0)),
    ),
    max_size=25,
)


@given(steps=STEPS)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_any_history_keeps_the_order_and_loses_nothing(setup, ordered, steps):
    """After any history of steps every key has one head at most, and everything is consumed."""
    with setup.engine.begin() as connection:
        for table in ("inbox_deliveries", "inbox_requests"):
            connection.execute(text(f"DELETE FROM {table}"))
    history = History(setup, ordered)
    for action, argument, number in steps:
        await getattr(history, action)(argument, number)
    setup.clock.turn(60)
    while leased := lease(setup):
        finish(setup, leased)
    assert set(setup.statuses().values()) <= {"done", "dead_letter", "ignored"}
    assert len(setup.statuses()) == history.count


class History:
    """Carries out the steps, and checks at each claim that a key is in one hand."""

    def __init__(self, setup, ordered):
        self.setup = setup
        self.ordered = ordered
        self.held = {}
        self.count = 0

    async def store(self, key, number):
        for _ in range(number):
            self.count += 1
            await self.setup.store(self.ordered(str(self.count), key))

    async def lease(self, _, number):
        for each in lease(self.setup, number):
            mates = [h for h in self.held.values() if h.ordering_key == each.ordering_key]
            assert each.lapsed or not mates
            self.held[each.id] = each

    async def turn(self, _, number):
        self.setup.clock.turn(number)
        for lost in self.setup.inbox.extend(list(self.held.values()), self.setup.owner):
            del self.held[lost.id]

    async def replay(self, status, _):
        self.setup.operations.replay(DeliveryFilter(statuses=(status,)), dry_run=False)

    async def release(self, _, number):
        if chosen := self.take(number):
            self.setup.inbox.release([chosen])

    async def settle(self, status, number):
        if chosen := self.take(number):
            retry_at = self.setup.clock() if status == "failed" else None
            self.setup.inbox.settle([Settlement(chosen, status, retry_at=retry_at)])

    def take(self, number):
        if not self.held:
            return None
        return self.held.pop(list(self.held)[number % len(self.held)])
