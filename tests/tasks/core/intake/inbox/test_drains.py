"""The register of drain runs: never too many, and a dead one falls out."""

from __future__ import annotations

from tasks.core.intake.inbox.rows import Claimer


async def test_enough_at_work(setup):
    """Only so many runs of an integration may enter; another integration is not concerned."""
    entered = [setup.drains.enter("orders", Claimer(f"run-{i}"), max_drains=2) for i in range(3)]
    assert entered == [True, True, False]
    assert setup.drains.enter("other", Claimer("run-9"), max_drains=2)
    assert setup.drains.at_work("orders") == 2


async def test_leaving_makes_room(setup):
    """A run that leaves makes room for the next."""
    setup.drains.enter("orders", setup.claimer, max_drains=1)
    setup.drains.leave(setup.claimer)
    assert setup.drains.at_work("orders") == 0
    assert setup.drains.enter("orders", Claimer("run-2"), max_drains=1)


async def test_all_but_one_are_spare(setup):
    """Of the runs at work on an integration exactly one is to wait for what comes."""
    runs = [Claimer(f"run-{i}") for i in range(3)]
    for run in runs:
        setup.drains.enter("orders", run, max_drains=9)
    setup.drains.enter("other", Claimer("run--1"), max_drains=9)
    assert [setup.drains.is_spare("orders", run) for run in runs] == [False, True, True]
    setup.drains.leave(runs[0])
    assert [setup.drains.is_spare("orders", run) for run in runs[1:]] == [False, True]


async def test_dead_run_falls_out(setup):
    """A run that stopped renewing counts no longer once its lease has ended."""
    setup.drains.enter("orders", setup.claimer, max_drains=1)
    setup.clock.turn(20)
    setup.drains.renew(setup.claimer)
    setup.clock.turn(29)
    assert setup.drains.at_work("orders") == 1
    setup.clock.turn(1)
    assert setup.drains.at_work("orders") == 0
    assert setup.drains.enter("orders", Claimer("run-2"), max_drains=1)


async def test_entering_twice(setup):
    """A run that starts again counts once."""
    setup.drains.enter("orders", setup.claimer, max_drains=1)
    assert setup.drains.enter("orders", setup.claimer, max_drains=1)


async def test_what_waits(setup, new):
    """Per integration: how many are due, since when, and how many runs are at work."""
    since = setup.clock()
    await setup.store(new("a"), new("b"), new("c", integration="other"))
    setup.clock.turn(60)
    setup.drains.enter("other", setup.claimer, max_drains=1)
    orders, other = setup.drains.waiting()
    assert (orders.integration, orders.due, orders.drains) == ("orders", 2, 0)
    assert orders.oldest_due_at == since
    assert (other.integration, other.due, other.drains) == ("other", 1, 1)


async def test_lapsed_claims_wait_too(setup, new):
    """What a dead run held is waiting once its lease has ended."""
    await setup.store(new("a"))
    setup.inbox.claim("orders", setup.claimer, limit=1)
    assert setup.drains.waiting() == []
    setup.clock.turn(30)
    assert [each.due for each in setup.drains.waiting()] == [1]
