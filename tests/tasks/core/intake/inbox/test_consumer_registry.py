"""The register of consumer runs: never too many, and a dead one falls out."""

from __future__ import annotations

from tasks.core.intake.inbox.rows import LeaseOwner


async def test_enough_at_work(setup):
    """Only so many runs of an integration may enter; another integration is not concerned."""
    entered = [
        setup.consumers.enter("orders", LeaseOwner(f"run-{i}"), max_runs=2) for i in range(3)
    ]
    assert entered == [True, True, False]
    assert setup.consumers.enter("other", LeaseOwner("run-9"), max_runs=2)
    assert setup.consumers.at_work("orders") == 2


async def test_leaving_makes_room(setup):
    """A run that leaves makes room for the next."""
    setup.consumers.enter("orders", setup.owner, max_runs=1)
    setup.consumers.leave(setup.owner)
    assert setup.consumers.at_work("orders") == 0
    assert setup.consumers.enter("orders", LeaseOwner("run-2"), max_runs=1)


async def test_all_but_one_are_spare(setup):
    """Of the runs at work on an integration exactly one is to wait for what comes."""
    runs = [LeaseOwner(f"run-{i}") for i in range(3)]
    for run in runs:
        setup.consumers.enter("orders", run, max_runs=9)
    setup.consumers.enter("other", LeaseOwner("run--1"), max_runs=9)
    assert [setup.consumers.is_spare("orders", run) for run in runs] == [False, True, True]
    setup.consumers.leave(runs[0])
    assert [setup.consumers.is_spare("orders", run) for run in runs[1:]] == [False, True]


async def test_dead_run_falls_out(setup):
    """A run that stopped renewing counts no longer once its lease has ended."""
    setup.consumers.enter("orders", setup.owner, max_runs=1)
    setup.clock.turn(20)
    setup.consumers.renew(setup.owner)
    setup.clock.turn(29)
    assert setup.consumers.at_work("orders") == 1
    setup.clock.turn(1)
    assert setup.consumers.at_work("orders") == 0
    assert setup.consumers.enter("orders", LeaseOwner("run-2"), max_runs=1)


async def test_entering_twice(setup):
    """A run that starts again counts once."""
    setup.consumers.enter("orders", setup.owner, max_runs=1)
    assert setup.consumers.enter("orders", setup.owner, max_runs=1)


async def test_what_waits(setup, new):
    """Per integration: how many are due, since when, and how many runs are at work."""
    since = setup.clock()
    await setup.store(new("a"), new("b"), new("c", integration="other"))
    setup.clock.turn(60)
    setup.consumers.enter("other", setup.owner, max_runs=1)
    orders, other = setup.consumers.waiting()
    assert (orders.integration, orders.due, orders.consumers) == ("orders", 2, 0)
    assert orders.oldest_due_at == since
    assert (other.integration, other.due, other.consumers) == ("other", 1, 1)


async def test_lapsed_leases_wait_too(setup, new):
    """What a dead run held is waiting once its lease has ended."""
    await setup.store(new("a"))
    setup.inbox.lease("orders", setup.owner, limit=1)
    assert setup.consumers.waiting() == []
    setup.clock.turn(30)
    assert [each.due for each in setup.consumers.waiting()] == [1]
