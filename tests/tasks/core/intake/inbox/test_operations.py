"""Operators see what they are about to touch, and touch nothing that is being handled."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from blocks.errors import MisconfiguredError, PermanentError
from tasks.core.intake.inbox.operations import DeliveryFilter
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.settlement import Settlement


def settle(setup, status, **fields):
    leased = setup.inbox.lease("orders", setup.owner, limit=100)
    setup.inbox.settle([Settlement(each, status, **fields) for each in leased])
    return leased


def keys(setup, summaries):
    with setup.engine.connect() as connection:
        rows = connection.execute(text("SELECT id, dedup_key FROM inbox_deliveries"))
        names = {row.id: row.dedup_key for row in rows}
    return [names[each.id] for each in summaries]


async def test_selection(setup, new):
    """Every criterion narrows the selection; the oldest come first."""
    start = setup.clock()
    for key, changes in {
        "a": {},
        "b": {"endpoint": "/x"},
        "c": {"integration": "other"},
    }.items():
        await setup.store(new(key, **changes))
        setup.clock.turn(60)
    select = setup.operations.select
    [b] = select(DeliveryFilter(endpoint="/x"))
    assert keys(setup, select(DeliveryFilter())) == ["a", "b", "c"]
    assert keys(setup, select(DeliveryFilter(limit=1))) == ["a"]
    assert keys(setup, select(DeliveryFilter(ids=(b.id,)))) == ["b"]
    assert keys(setup, select(DeliveryFilter(integration="orders", statuses=("received",)))) == [
        "a",
        "b",
    ]
    later = start + timedelta(seconds=60)
    assert keys(setup, select(DeliveryFilter(received_from_at=later))) == ["b", "c"]
    assert keys(setup, select(DeliveryFilter(received_until_at=later))) == ["a"]
    assert select(DeliveryFilter(integration="orders", endpoint="/none")) == []


def test_unknown_status():
    """A misspelt status is told, with the right ones."""
    with pytest.raises(MisconfiguredError, match="no status parkt; there are queued, received"):
        DeliveryFilter(statuses=("parkt",))


async def test_counts(setup, new):
    """Deliveries are counted by integration and status."""
    await setup.store(new("a"), new("b"))
    settle(setup, "done")
    await setup.store(new("c"))
    assert setup.operations.counts() == {("orders", "done"): 2, ("orders", "received"): 1}


async def test_read(setup, new):
    """A delivery can be read whatever became of it; one that is gone is told."""
    await setup.store(new("a"))
    [leased] = settle(setup, "done")
    assert setup.operations.read(leased.id).json() == {"order": 1}
    with pytest.raises(PermanentError, match="no such delivery; it may have been purged"):
        setup.operations.read("0" * 32)


async def test_dry_replay_touches_nothing(setup, new):
    """A dry run tells which deliveries, and leaves them."""
    await setup.store(new("a"))
    settle(setup, "dead_letter", reason="unknown item")
    [found] = setup.operations.replay(DeliveryFilter(statuses=("dead_letter",)), dry_run=True)
    assert (found.status, found.reason) == ("dead_letter", "unknown item")
    assert setup.statuses() == {"a": "dead_letter"}
    assert not setup.inbox.has_due("orders")


async def test_replay_keeps_the_idempotency_key(setup, new):
    """A replayed delivery is handled anew, and repeats no effect that was completed."""
    await setup.store(new("a"))
    [first] = settle(setup, "done")
    [before] = setup.operations.replay(DeliveryFilter(ids=(first.id,)), dry_run=False)
    assert before.status == "done"
    [again] = setup.inbox.lease("orders", setup.owner, limit=1)
    assert (again.id, again.attempt) == (first.id, 1)
    assert again.idempotency_key == first.idempotency_key


async def test_replay_with_new_effects(setup, new):
    """A replay that asks for new effects has another key than every one before, the same id."""
    await setup.store(new("a"))
    seen = [settle(setup, "done")[0].idempotency_key]
    for _ in range(2):
        setup.operations.replay(
            DeliveryFilter(integration="orders"), dry_run=False, new_effects=True
        )
        [again] = settle(setup, "done")
        assert again.id == seen[0]
        seen.append(again.idempotency_key)
    assert len(set(seen)) == 3


async def test_replay_leaves_what_is_being_handled(setup, new):
    """What a run holds is not taken from it; what it left lying is replayed."""
    await setup.store(new("a"))
    held = setup.inbox.lease("orders", setup.owner, limit=1)
    assert setup.operations.replay(DeliveryFilter(integration="orders"), dry_run=False) == []
    setup.inbox.settle([Settlement(held[0], "done")])
    assert setup.statuses() == {"a": "done"}


async def test_replay_of_everything_is_refused(setup):
    """A replay without any criterion is a mistake."""
    with pytest.raises(MisconfiguredError, match="say which deliveries"):
        setup.operations.replay(DeliveryFilter(), dry_run=True)


async def test_replay_is_not_a_duplicate(setup, new):
    """A replay is not swallowed by deduplication, and a re-sent delivery still is."""
    await setup.store(new("a"))
    [first] = settle(setup, "done")
    for _ in range(2):
        setup.operations.replay(DeliveryFilter(ids=(first.id,)), dry_run=False)
        assert len(settle(setup, "done")) == 1
    [stored] = await setup.store(new("a"))
    assert not stored.is_new


async def test_purge(setup, new):
    """Old finished deliveries go with their content; younger ones and dead letters stay."""
    await setup.store(new("old", payload=b"1"), new("shared", body=b"[1,2]", payload=b"1"))
    settle(setup, "done")
    await setup.store(new("dead_letter", body=b"[3]"))
    settle(setup, "dead_letter")
    await setup.store(new("waiting", body=b"[4]"))
    setup.clock.turn(3600)
    await setup.store(new("young", body=b"[5]"))
    leased = setup.inbox.lease("orders", LeaseOwner("x"), limit=10)
    young = [each for each in leased if each.body == b"[5]"]
    setup.inbox.settle([Settlement(each, "done") for each in young])
    setup.inbox.release([each for each in leased if each not in young])
    before = setup.clock() - timedelta(seconds=60)
    assert setup.operations.purge(settled_before_at=before, dry_run=True) == 2
    assert len(setup.statuses()) == 5
    assert setup.operations.purge(settled_before_at=before, dry_run=False) == 2
    assert set(setup.statuses()) == {"dead_letter", "waiting", "young"}
    with setup.engine.connect() as connection:
        left = [
            connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            for table in ("inbox_requests", "inbox_payloads")
        ]
    assert left == [3, 0]


async def test_purge_keeps_a_body_that_is_still_needed(setup, new):
    """The body that a batch shares stays as long as one of its deliveries does."""
    batch = [new(key, body=b"[1,2]", payload=b"1") for key in ("a", "b")]
    await setup.store(*batch)
    [first] = setup.inbox.lease("orders", setup.owner, limit=1)
    setup.inbox.settle([Settlement(first, "done")])
    setup.clock.turn(10)
    assert setup.operations.purge(settled_before_at=setup.clock(), dry_run=False) == 1
    [second] = setup.inbox.lease("orders", setup.owner, limit=1)
    assert second.body == b"[1,2]"


async def test_purge_of_more_than_a_chunk(setup, new):
    """A purge goes on until nothing old is left."""
    await setup.store(*(new(str(i)) for i in range(1001)))
    for _ in range(3):
        leased = setup.inbox.lease("orders", setup.owner, limit=500)
        setup.inbox.settle([Settlement(each, "done") for each in leased])
    setup.clock.turn(10)
    assert setup.operations.purge(settled_before_at=setup.clock(), dry_run=False) == 1001
    assert setup.statuses() == {}


async def test_purge_of_unfinished_is_refused(setup):
    """What is not finished cannot be purged."""
    with pytest.raises(MisconfiguredError, match="only done, ignored, cancelled and dead-lettered"):
        setup.operations.purge(
            settled_before_at=setup.clock(), statuses=("received",), dry_run=True
        )


async def test_replay_of_more_than_a_chunk(setup, new):
    """A replay reaches every selected delivery."""
    await setup.store(*(new(str(i)) for i in range(600)))
    for _ in range(2):
        leased = setup.inbox.lease("orders", setup.owner, limit=500)
        setup.inbox.settle([Settlement(each, "dead_letter") for each in leased])
    found = setup.operations.replay(DeliveryFilter(statuses=("dead_letter",)), dry_run=False)
    assert len(found) == 600
    assert set(setup.statuses().values()) == {"received"}
