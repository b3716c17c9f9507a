"""A run handles each delivery on its own, and neither hides a failure nor forgets one."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from blocks.errors import UpstreamBusyError
from tasks.core import threads
from tasks.core.intake.inbox.consumer import ConsumerSettings, InboxConsumer
from tasks.core.intake.inbox.delivery import handed_to
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.settlement import Settlement, settle_outcome
from tasks.core.intake.inbox.store import Inbox

SETTINGS = {"concurrency": 4, "idle_timeout_s": 0, "lease_s": 30}


class Fixture:
    """Makes consumers, and remembers what they handled and whom they notified."""

    def __init__(self, setup):
        self.setup = setup
        self.handled = []
        self.notified = []
        self.looks_at_clock = 0

    def monotonic(self):
        self.looks_at_clock += 1
        return self.setup.clock().timestamp()

    def consumer(self, handle=None, *, run_id="run-1", inbox=None, register=None, **settings):
        async def notify(integration):
            self.notified.append(integration)

        async def handle_and_remember(delivery):
            self.handled.append(delivery.body.decode())
            return await (handle or succeed)(delivery)

        return InboxConsumer(
            inbox or self.setup.inbox,
            register or self.setup.consumers,
            integration="orders",
            run_id=run_id,
            handle=handle_and_remember,
            settings=ConsumerSettings(**(SETTINGS | settings)),
            notify=notify,
            log=logging.getLogger("consumer"),
            poll_s=0.005,
            monotonic=self.monotonic,
        )


async def until(condition):
    while not condition():  # noqa: ASYNC110 - the condition is in a database
        await asyncio.sleep(0.002)


async def succeed(delivery):
    return Settlement(delivery, "done")


@pytest.fixture
def consumers(setup):
    return Fixture(setup)


@pytest.fixture
def named(new):
    return lambda key, **changes: new(key, body=key.encode(), **changes)


async def test_everything_is_handled_once(setup, consumers, named):
    """A run handles all that is waiting, each once, and leaves the register."""
    await setup.store(*(named(str(i)) for i in range(100)))
    report = await consumers.consumer().run()
    assert report.counts == {"done": 100}
    assert sorted(consumers.handled, key=int) == [str(i) for i in range(100)]
    assert setup.consumers.at_work("orders") == 0
    assert consumers.notified == []


async def test_failures_are_each_ones_own(setup, consumers, named):
    """A failing delivery is reported by name and stops no other one."""

    async def handle(delivery):
        if delivery.body == b"3":
            return Settlement(delivery, "dead_letter", "unknown item")
        if delivery.body == b"4":
            retry_at = setup.clock() + timedelta(seconds=60)
            return Settlement(delivery, "failed", "busy", retry_at=retry_at)
        return Settlement(delivery, "done")

    await setup.store(*(named(str(i)) for i in range(20)))
    report = await consumers.consumer(handle).run()
    assert report.counts == {"done": 18, "dead_letter": 1, "failed": 1}
    assert {(each.status, each.reason) for each in report.failures} == {
        ("dead_letter", "unknown item"),
        ("failed", "busy"),
    }
    assert len(consumers.handled) == 20


async def test_slow_delivery_holds_up_no_other(setup, consumers, named):
    """While one delivery takes long the others go through."""
    others = asyncio.Event()

    async def handle(delivery):
        if delivery.body == b"slow":
            await others.wait()
        elif len(consumers.handled) == 21:
            others.set()
        return Settlement(delivery, "done")

    await setup.store(named("slow"), *(named(str(i)) for i in range(20)))
    report = await consumers.consumer(handle).run()
    assert report.counts == {"done": 21}


async def test_a_run_that_stays_meets_what_arrives(setup, consumers, named):
    """A run that stays takes what arrives, and ends once the declared time has passed."""
    arrived = asyncio.Event()

    async def handle(delivery):
        arrived.set()
        return Settlement(delivery, "done")

    await setup.store(named("a"))
    running = asyncio.create_task(consumers.consumer(handle, idle_timeout_s=5).run())
    await arrived.wait()
    arrived.clear()
    await setup.store(named("b"))
    await arrived.wait()
    await until(lambda: not setup.inbox.unfinished_of_run("run-1"))
    assert not running.done()
    while not running.done():
        setup.clock.turn(1)
        await asyncio.sleep(0.01)
    assert (await running).counts == {"done": 2}


async def test_only_one_of_several_stays(setup, consumers, named):
    """A run beside which another one waits ends as soon as the inbox is empty."""
    setup.consumers.enter("orders", LeaseOwner("a run before"), max_runs=9)
    await setup.store(named("a"))
    report = await consumers.consumer(idle_timeout_s=1e6).run()
    assert report.counts == {"done": 1}


async def test_a_run_for_nothing_does_not_stay(consumers):
    """A run that finds nothing at all ends: another one has taken what it was started for."""
    report = await consumers.consumer(idle_timeout_s=1e6).run()
    assert report.counts == {}


async def test_failure_does_not_stay(setup, consumers, named):
    """A run that failed at something ends when the inbox is empty, to be seen."""

    async def handle(delivery):
        return Settlement(delivery, "dead_letter", "unknown item")

    await setup.store(named("a"))
    report = await consumers.consumer(handle, idle_timeout_s=1e6).run()
    assert len(report.failures) == 1


async def test_failure_under_load_is_reported_soon(setup, consumers, named):
    """Under load a run that failed stops leasing after the declared time and notifies."""

    async def handle(delivery):
        setup.clock.turn(1)
        status = "dead_letter" if delivery.body == b"0" else "done"
        return Settlement(delivery, status)

    await setup.store(*(named(str(i)) for i in range(200)))
    report = await consumers.consumer(handle, report_failures_within_s=3).run()
    assert len(report.failures) == 1
    assert report.counts["done"] < 199
    assert consumers.notified == ["orders"]
    assert set(setup.statuses().values()) == {"dead_letter", "done", "received"}


async def test_long_run_ends_and_another_carries_on(setup, consumers, named):
    """A run ends after its longest time, finishes what it leased, and notifies of the rest."""

    async def handle(delivery):
        setup.clock.turn(1)
        return Settlement(delivery, "done")

    await setup.store(*(named(str(i)) for i in range(200)))
    report = await consumers.consumer(handle, max_run_s=10).run()
    assert 0 < report.counts["done"] < 200
    assert consumers.notified == ["orders"]
    assert set(setup.statuses().values()) == {"done", "received"}


async def test_enough_at_work(setup, consumers, named):
    """A run takes nothing when enough runs are at work."""
    await setup.store(named("a"))
    setup.consumers.enter("orders", LeaseOwner("other"), max_runs=1)
    report = await consumers.consumer(max_runs=1).run()
    assert report.at_capacity
    assert consumers.handled == []


async def test_arrival_at_the_last_moment_is_not_forgotten(setup, consumers, named):
    """What arrives after the last look, while the run still counts as at work, is notified."""

    class LateArrival(type(setup.consumers)):
        def leave(self, owner):
            asyncio.run_coroutine_threadsafe(setup.store(named("late")), loop).result()
            super().leave(owner)

    loop = asyncio.get_running_loop()
    setup.consumers = LateArrival(setup.engine, clock=setup.clock)
    await consumers.consumer().run()
    assert consumers.notified == ["orders"]


async def test_retry_handles_what_failed_and_nothing_else(setup, consumers, named):
    """A retried run handles its failures before their time, and leaves new arrivals alone."""

    async def fail(delivery):
        if delivery.body == b"ok":
            return Settlement(delivery, "done")
        retry_at = setup.clock() + timedelta(hours=1)
        status = "dead_letter" if delivery.body == b"dead_letter" else "failed"
        return Settlement(delivery, status, retry_at=retry_at if status == "failed" else None)

    await setup.store(named("ok"), named("dead_letter"), named("failed"))
    await consumers.consumer(fail).run()
    await setup.store(named("new"))
    consumers.handled.clear()
    report = await consumers.consumer(idle_timeout_s=1e6).retry()
    assert sorted(consumers.handled) == ["dead_letter", "failed"]
    assert report.counts == {"done": 2}
    assert setup.statuses()["new"] == "received"


async def test_retry_of_many(setup, consumers, named):
    """A retried run handles all of its failures even if they fail again, each once."""

    async def fail(delivery):
        setup.clock.turn(1)
        return Settlement(delivery, "dead_letter")

    await setup.store(*(named(str(i)) for i in range(50)))
    await consumers.consumer(fail, report_failures_within_s=1e6).run()
    consumers.handled.clear()
    report = await consumers.consumer(fail, report_failures_within_s=0).retry()
    assert len(report.failures) == 50
    assert len(set(consumers.handled)) == len(consumers.handled) == 50


async def test_retry_with_nothing_left(setup, consumers):
    """A retried run whose failures others have handled since ends at once."""
    report = await consumers.consumer(idle_timeout_s=1e6).retry()
    assert report.counts == {}


async def test_retry_of_one_key_in_order(setup, consumers, named):
    """A retried run handles its failures of one ordering key one after the other."""

    async def fail(delivery):
        return Settlement(delivery, "dead_letter")

    await setup.store(*(named(str(i), ordering_key="k") for i in range(5)))
    await consumers.consumer(fail).run()
    consumers.handled.clear()
    await consumers.consumer().retry()
    assert consumers.handled == ["0", "1", "2", "3", "4"]


async def test_suspects_are_handled_alone(setup, consumers, named):
    """Deliveries that may have killed a process are handled with nothing else in hand."""
    at_work = 0
    company = {}

    async def handle(delivery):
        nonlocal at_work
        at_work += 1
        await asyncio.sleep(0.005)
        company[delivery.body] = at_work
        at_work -= 1
        return Settlement(delivery, "done")

    await setup.store(named("s1"), named("s2"))
    setup.inbox.lease("orders", LeaseOwner("dead"), limit=2)
    setup.clock.turn(60)
    await setup.store(*(named(str(i)) for i in range(8)))
    report = await consumers.consumer(handle).run()
    assert report.counts == {"done": 10}
    assert company[b"s1"] == company[b"s2"] == 1
    assert max(company.values()) > 1


async def test_lease_is_renewed_while_a_delivery_takes_long(setup, consumers, named):
    """A delivery that takes many leases' time stays with the run that handles it."""

    async def handle(delivery):
        for _ in range(12):
            setup.clock.turn(10)
            await until(lambda: setup.inbox.renewed_at == setup.clock())
        return Settlement(delivery, "done")

    class Watched(Inbox):
        renewed_at = None

        def extend(self, deliveries, owner):
            lost = super().extend(deliveries, owner)
            self.renewed_at = setup.clock()
            return lost

    setup.inbox.close()
    setup.inbox = Watched(setup.engine, clock=setup.clock)
    await setup.store(named("a"))
    report = await consumers.consumer(handle).run()
    assert report.counts == {"done": 1}
    assert report.lost == 0


async def test_outcome_after_the_lease(setup, consumers, named):
    """An outcome that comes too late is reported as lost, and the other run's counts."""

    async def handle(delivery):
        setup.clock.turn(31)
        [taken] = setup.inbox.lease("orders", LeaseOwner("other", lease_s=1e6), limit=1)
        setup.inbox.settle([Settlement(taken, "ignored")])
        return Settlement(delivery, "done")

    await setup.store(named("a"))
    report = await consumers.consumer(handle).run()
    assert (report.lost, report.counts) == (1, {})
    assert setup.statuses() == {"a": "ignored"}


async def test_cancelled_run_gives_back_what_it_had_leased(setup, consumers, named):
    """A cancelled run releases its deliveries at once, with the attempt not counted."""
    started = asyncio.Event()

    async def handle(delivery):
        started.set()
        await asyncio.Event().wait()

    await setup.store(named("a"), named("b"))
    running = asyncio.create_task(consumers.consumer(handle).run())
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert setup.consumers.at_work("orders") == 0
    again = setup.inbox.lease("orders", LeaseOwner("next"), limit=9)
    assert [each.attempt for each in again] == [1, 1]


class Steps:
    """Passes calls of the state database on; before each is a step, and behind it another."""

    def __init__(self, step, inner):
        self._step = step
        self._inner = inner

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*arguments, **options):
            self._step()
            result = found(*arguments, **options)
            self._step()
            return result

        return call


@pytest.mark.parametrize("retrying", [False, True])
async def test_cancelled_in_any_call_of_the_database(setup, consumers, named, retrying):
    """Wherever a run is cancelled, nothing stays claimed, and nothing is handled twice."""
    completed = []

    async def handle(delivery):
        await asyncio.sleep(0)
        completed.append(delivery.id)
        return Settlement(delivery, "done")

    async def fail(delivery):
        return Settlement(delivery, "failed", "busy", setup.clock() + timedelta(seconds=60))

    async def cancelled_at(at, keys):
        """Whether so many steps came at all."""
        loop, steps = asyncio.get_running_loop(), itertools.count(1)

        def step():
            if next(steps) == at:
                loop.call_soon_threadsafe(running.cancel)
                with suppress(asyncio.CancelledError):
                    threads.sleep(60)

        inbox, register = Steps(step, setup.inbox), Steps(step, setup.consumers)
        consumer = consumers.consumer(handle, inbox=inbox, register=register, concurrency=2)
        running = asyncio.create_task(consumer.retry() if retrying else consumer.run())
        await asyncio.wait([running])
        if running.cancelled():
            assert setup.consumers.at_work("orders") == 0
            assert "leased" not in setup.statuses().values()
            await consumers.consumer(handle).retry()
            await consumers.consumer(handle, run_id="run-2").run()
        assert {setup.statuses()[key] for key in keys} == {"done"}
        assert len(set(completed)) == len(completed)
        return running.cancelled()

    at = 0
    while True:
        at += 1
        keys = [f"{at}-{number}" for number in range(5)]
        await setup.store(*map(named, keys))
        if retrying:
            await consumers.consumer(fail, report_failures_within_s=60).run()
        if not await cancelled_at(at, keys):
            break
    assert at > (8 if retrying else 14)


@pytest.mark.parametrize("rounds", range(0, 40, 3))
async def test_cancelled_in_any_round_of_the_loop(setup, consumers, named, rounds):
    """However far a run has come when it is cancelled, nothing stays claimed."""
    await setup.store(*(named(str(i)) for i in range(5)))
    running = asyncio.create_task(consumers.consumer(concurrency=2).run())
    for _ in range(rounds):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert setup.consumers.at_work("orders") == 0
    assert set(setup.statuses().values()) <= {"received", "done"}


async def test_cancelled_while_the_database_is_silent(setup, consumers, named, monkeypatch):
    """The run ends as cancelled; its deliveries are free again when their lease is over."""
    monkeypatch.setattr(threads, "GRACE_S", 0.1)
    monkeypatch.setattr(threads, "_LEAST_S", 0.01)
    silent, over = threading.Event(), threading.Event()

    def step():
        if consumers.handled:
            silent.set()
            over.wait()
            raise TimeoutError

    async def handle(delivery):
        await asyncio.Event().wait()

    await setup.store(named("a"), named("b"))
    inbox, register = Steps(step, setup.inbox), Steps(step, setup.consumers)
    running = asyncio.create_task(consumers.consumer(handle, inbox=inbox, register=register).run())
    await until(silent.is_set)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert setup.statuses() == {"a": "leased", "b": "leased"}
    setup.clock.turn(31)
    assert len(setup.inbox.lease("orders", LeaseOwner("next"), limit=9)) == 1, (
        "lapsed ones go alone"
    )
    over.set()


@pytest.mark.parametrize("why", ["cancelled", "bug"])
async def test_known_outcomes_survive_the_end_of_the_run(setup, consumers, named, why):
    """However a run ends, what was handled is stored as that, and only the rest given back."""

    async def handle(delivery):
        if delivery.body == b"a":
            return Settlement(delivery, "done")
        if delivery.body == b"b":
            return settle_outcome(delivery, handed_to("returns"))
        if delivery.body == b"c":
            return Settlement(delivery, "dead_letter", "refused")
        if why == "bug":
            raise ZeroDivisionError
        running.cancel()
        return await asyncio.Event().wait()

    await setup.store(*map(named, "abcde"))
    running = asyncio.create_task(consumers.consumer(handle, concurrency=1).run())
    with pytest.raises((asyncio.CancelledError, ZeroDivisionError)):
        await running
    assert consumers.handled == ["a", "b", "c", "d"]
    assert setup.statuses() == {
        "a": "done",
        "b": "received",
        "c": "dead_letter",
        "d": "received",
        "e": "received",
    }
    assert [each.body for each in setup.inbox.lease("returns", LeaseOwner("r"), limit=9)] == [b"b"]
    again = setup.inbox.lease("orders", LeaseOwner("next"), limit=9)
    assert [(each.body, each.attempt) for each in again] == [(b"d", 1), (b"e", 1)]
    assert consumers.notified == ["returns"]


async def test_cancelled_while_the_database_is_away(setup, consumers, named):
    """A run that can store nothing any more still ends as cancelled."""

    class Gone(Inbox):
        def settle(self, settlements):
            raise UpstreamBusyError("locked", system="inbox", operation="settle")

        def release(self, deliveries):
            raise UpstreamBusyError("locked", system="inbox", operation="release")

    async def handle(delivery):
        if delivery.body == b"b":
            running.cancel()
        return Settlement(delivery, "done")

    await setup.store(named("a"), named("b"))
    inbox = Gone(setup.engine, clock=setup.clock)
    running = asyncio.create_task(consumers.consumer(handle, inbox=inbox, concurrency=1).run())
    with pytest.raises(asyncio.CancelledError):
        await running
    inbox.close()
    assert setup.statuses() == {"a": "leased", "b": "leased"}


async def test_busy_database_is_waited_for(setup, consumers, named):
    """While the database is busy outcomes are kept; nothing is handled twice."""

    class Busy(Inbox):
        refusals = 3

        def settle(self, settlements):
            if self.refusals:
                self.refusals -= 1
                raise UpstreamBusyError("locked", system="inbox", operation="settle")
            super().settle(settlements)

    await setup.store(named("a"))
    inbox = Busy(setup.engine, clock=setup.clock)
    report = await consumers.consumer(inbox=inbox).run()
    inbox.close()
    assert report.counts == {"done": 1}
    assert consumers.handled == ["a"]


async def test_database_that_stays_away(setup, consumers, named):
    """A database that is away for longer than a lease ends the run with its error."""

    class Gone(Inbox):
        def settle(self, settlements):
            setup.clock.turn(31)
            raise UpstreamBusyError("locked", system="inbox", operation="settle")

    await setup.store(named("a"))
    inbox = Gone(setup.engine, clock=setup.clock)
    with pytest.raises(UpstreamBusyError, match="locked"):
        await consumers.consumer(inbox=inbox).run()
    inbox.close()


async def test_handing_over_notifies_the_other(setup, consumers, named):
    """The integration that is handed deliveries is notified once while it has no run at work."""

    async def handle(delivery):
        return settle_outcome(delivery, handed_to("returns"))

    await setup.store(*(named(str(i)) for i in range(30)))
    report = await consumers.consumer(handle).run()
    assert report.counts == {"handed over": 30}
    assert consumers.notified == ["returns"]
    assert len(setup.inbox.lease("returns", LeaseOwner("r"), limit=100)) == 30


async def test_bug_in_the_machinery_is_shown(setup, consumers, named):
    """A handler that breaks its promise and raises ends the run with that error."""

    async def handle(delivery):
        raise ZeroDivisionError

    await setup.store(named("a"))
    with pytest.raises(ZeroDivisionError):
        await consumers.consumer(handle).run()
    assert setup.statuses() == {"a": "received"}


async def test_crashed_attempts_count(setup, consumers, named):
    """A delivery's attempt grows with every claim that ended without an outcome."""
    await setup.store(named("a"))
    attempts = []

    async def handle(delivery):
        attempts.append(delivery.attempt)
        return Settlement(replace(delivery), "done")

    for _ in range(3):
        setup.inbox.lease("orders", LeaseOwner("dead"), limit=1)
        setup.clock.turn(60)
    await consumers.consumer(handle).run()
    assert attempts == [4]


async def turn_until(consumers, condition, *, most_s=100_000):
    """Let time pass until something is so; it does not outrun the runs, however slow they are."""
    for _ in range(most_s // 2):
        if condition():
            return
        consumers.setup.clock.turn(2)
        seen = consumers.looks_at_clock
        await until(lambda: consumers.looks_at_clock > seen or condition())  # noqa: B023
    raise AssertionError("it never is")


async def test_a_run_kept_warm_leaves_when_its_successor_has_come(setup, consumers, named):
    """It stays to the end of its time, notifies, works on, and leaves to the one that comes."""
    first = consumers.consumer(keep_warm=True, idle_timeout_s=0, max_run_s=600)
    running = asyncio.create_task(first.run())
    await turn_until(consumers, lambda: consumers.notified == ["orders"])
    # the clock may have outrun a slow database; it stands still now
    await until(lambda: setup.consumers.at_work("orders") == 1)
    await setup.store(named("a"))
    await until(lambda: consumers.handled == ["a"])
    second = consumers.consumer(run_id="run-2", keep_warm=True, idle_timeout_s=0, max_run_s=600)
    succeeding = asyncio.create_task(second.run())
    assert (await running).counts == {"done": 1}
    await until(lambda: setup.consumers.at_work("orders") == 1)
    await asyncio.sleep(0.05)
    assert not succeeding.done()
    succeeding.cancel()
    await asyncio.gather(succeeding, return_exceptions=True)


async def test_a_run_kept_warm_in_vain_leaves_and_notifies(setup, consumers):
    """Without a successor it ends all the same, and others are notified of what comes later."""
    running = asyncio.create_task(
        consumers.consumer(keep_warm=True, idle_timeout_s=0, max_run_s=60).run()
    )
    await turn_until(consumers, running.done)
    assert setup.consumers.at_work("orders") == 0
    assert consumers.notified.count("orders") >= 2


async def test_of_two_runs_kept_warm_one_leaves(setup, consumers):
    """After a while only one of them holds a place."""
    both = [
        asyncio.create_task(
            consumers.consumer(
                run_id=f"run-{n}", keep_warm=True, idle_timeout_s=0, max_run_s=1e6
            ).run()
        )
        for n in (1, 2)
    ]
    await turn_until(consumers, lambda: any(each.done() for each in both))
    await asyncio.sleep(0.05)
    assert setup.consumers.at_work("orders") == 1
    for each in both:
        each.cancel()
    await asyncio.gather(*both, return_exceptions=True)
