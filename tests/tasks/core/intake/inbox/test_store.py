"""Claiming and settling: one claimer at a time, and a late one has no say."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import event

from tasks.core.intake.inbox.delivery import handed_to
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.settlement import Settlement, settle_outcome
from tasks.core.intake.inbox.store import Inbox, LeasesLostError

OTHER = LeaseOwner("run-2", lease_s=30)


def settled(deliveries, status="done", **fields):
    return [Settlement(each, status, **fields) for each in deliveries]


async def test_leased_once(setup, new):
    """A claimed delivery is nobody else's until its lease runs out."""
    await setup.store(new("a"), new("b"))
    first = setup.inbox.lease("orders", setup.owner, limit=1)
    second = setup.inbox.lease("orders", OTHER, limit=10)
    assert [each.body for each in first + second] == [b'{"order": 1}'] * 2
    assert {each.id for each in first}.isdisjoint(each.id for each in second)
    assert setup.inbox.lease("orders", OTHER, limit=10) == []


async def test_lease_gives_what_was_received(setup, new):
    """Headers, body, payload and event come back as they were stored."""
    await setup.store(new("a", body=b"<xml/>", payload=b'{"x": 1}', content_type="text/xml"))
    [delivery] = setup.inbox.lease("orders", setup.owner, limit=1)
    assert (delivery.event, delivery.endpoint) == ("order.created", "/hooks/orders")
    assert (delivery.body, delivery.content_type) == (b"<xml/>", "text/xml")
    assert delivery.json() == {"x": 1}
    assert delivery.header("x-event") == "order.created"
    assert delivery.received_at == setup.clock()
    assert delivery.attempt == 1


async def test_other_integrations_are_left_alone(setup, new):
    """A run takes its own integration's deliveries."""
    await setup.store(new("a", integration="other"))
    assert not setup.inbox.has_due("orders")
    assert setup.inbox.lease("orders", setup.owner, limit=10) == []


async def test_oldest_first(setup, new):
    """Deliveries are claimed in the order of arrival."""
    for key in ("first", "second", "third"):
        await setup.store(new(key, body=key.encode()))
        setup.clock.turn(1)
    leased = setup.inbox.lease("orders", setup.owner, limit=2)
    assert [each.body for each in leased] == [b"first", b"second"]


@pytest.mark.parametrize("status", ["done", "ignored", "dead_letter"])
async def test_final(setup, new, status):
    """What is done, ignored or dead-lettered is not handed out again."""
    await setup.store(new("a"))
    setup.inbox.settle(settled(setup.inbox.lease("orders", setup.owner, limit=1), status))
    setup.clock.turn(10_000)
    assert setup.inbox.lease("orders", OTHER, limit=1) == []
    assert setup.statuses() == {"a": status}


async def test_failed_comes_back_at_its_time(setup, new):
    """A failed delivery is due again from its retry time on, with the next attempt."""
    await setup.store(new("a"))
    leased = setup.inbox.lease("orders", setup.owner, limit=1)
    retry_at = setup.clock() + timedelta(seconds=60)
    setup.inbox.settle(settled(leased, "failed", reason="busy", retry_at=retry_at))
    setup.clock.turn(59)
    assert setup.inbox.lease("orders", OTHER, limit=1) == []
    setup.clock.turn(1)
    [again] = setup.inbox.lease("orders", OTHER, limit=1)
    assert (again.attempt, again.lapsed) == (2, False)
    assert again.idempotency_key == leased[0].idempotency_key


async def test_lapsed_lease_is_taken_over_and_fenced_off(setup, new):
    """When a lease has run out another takes the delivery, and the late outcome is refused."""
    await setup.store(new("a"))
    late = setup.inbox.lease("orders", setup.owner, limit=1)
    setup.clock.turn(30)
    [taken] = setup.inbox.lease("orders", OTHER, limit=1)
    assert (taken.lapsed, taken.attempt) == (True, 2)
    with pytest.raises(LeasesLostError, match="lease of 1 deliveries had run out") as raised:
        setup.inbox.settle(settled(late))
    assert raised.value.ids == (late[0].id,)
    assert setup.statuses() == {"a": "leased"}
    setup.inbox.settle(settled([taken]))
    assert setup.statuses() == {"a": "done"}


async def test_late_outcome_is_refused_even_if_nobody_took_over(setup, new):
    """A claimer has no say once its lease has run out."""
    await setup.store(new("a"))
    late = setup.inbox.lease("orders", setup.owner, limit=1)
    setup.clock.turn(30)
    with pytest.raises(LeasesLostError):
        setup.inbox.settle(settled(late, "dead_letter"))
    assert setup.statuses() == {"a": "leased"}


async def test_same_run_leases_again(setup, new):
    """A claim by the same run does not make its earlier claim valid again."""
    await setup.store(new("a"))
    late = setup.inbox.lease("orders", setup.owner, limit=1)
    setup.clock.turn(30)
    setup.inbox.lease("orders", setup.owner, limit=1)
    with pytest.raises(LeasesLostError):
        setup.inbox.settle(settled(late))


async def test_one_late_outcome_does_not_lose_the_others(setup, new):
    """Of a group of outcomes only the late ones are refused."""
    await setup.store(new("a"))
    late = setup.inbox.lease("orders", setup.owner, limit=1)
    setup.clock.turn(30)
    await setup.store(new("b"))
    fresh = setup.inbox.lease("orders", setup.owner, limit=1, may_be_lapsed=True)
    assert fresh[0].lapsed
    other = setup.inbox.lease("orders", setup.owner, limit=1)
    with pytest.raises(LeasesLostError):
        setup.inbox.settle(settled(late + other))
    assert setup.statuses() == {"a": "leased", "b": "done"}


async def test_extended_lease(setup, new):
    """An extended lease keeps the delivery; one that had run out is reported as lost."""
    await setup.store(new("a"), new("b"))
    held = setup.inbox.lease("orders", setup.owner, limit=1)
    setup.clock.turn(20)
    lost = setup.inbox.lease("orders", LeaseOwner("run-1", lease_s=5), limit=1)
    setup.clock.turn(9)
    assert setup.inbox.extend(held + lost, setup.owner) == lost
    setup.clock.turn(29)
    assert [each.id for each in setup.inbox.lease("orders", OTHER, limit=9)] == [lost[0].id]
    setup.inbox.settle(settled(held))


async def test_suspect_is_leased_alone(setup, new):
    """A delivery whose process may have died of it takes no other one along."""
    await setup.store(new("poison"))
    setup.inbox.lease("orders", setup.owner, limit=1)
    setup.clock.turn(30)
    await setup.store(new("a"), new("b"))
    assert setup.inbox.lease("orders", OTHER, limit=9, may_be_lapsed=False) == []
    [suspect] = setup.inbox.lease("orders", OTHER, limit=9)
    assert suspect.lapsed
    others = setup.inbox.lease("orders", OTHER, limit=9, may_be_lapsed=False)
    assert len(others) == 2


async def test_lease_stops_before_a_suspect(setup, new):
    """What is due before a suspect is claimed without it."""
    await setup.store(new("a"))
    setup.clock.turn(5)
    await setup.store(new("poison", integration="x"))
    setup.inbox.lease("x", setup.owner, limit=1)
    setup.clock.turn(31)
    await setup.store(new("b", integration="x", received_at=setup.clock() - timedelta(hours=1)))
    leased = setup.inbox.lease("x", OTHER, limit=9)
    assert [each.lapsed for each in leased] == [False]


async def test_large_payloads_are_leased_few_at_a_time(setup, new):
    """A claim stays below its byte limit, but always takes at least one."""
    await setup.store(*(new(str(i), body=b"%d" % i * 100) for i in range(3)))
    assert len(setup.inbox.lease("orders", setup.owner, limit=9, max_bytes=250)) == 2
    assert len(setup.inbox.lease("orders", setup.owner, limit=9, max_bytes=10)) == 1


async def test_released(setup, new):
    """A released delivery is due at once, and the attempt does not count."""
    await setup.store(new("a"))
    setup.inbox.release(setup.inbox.lease("orders", setup.owner, limit=1))
    [again] = setup.inbox.lease("orders", OTHER, limit=1)
    assert (again.attempt, again.lapsed) == (1, False)


async def test_handed_over(setup, new):
    """A delivery handed to another integration is the same delivery there, with new attempts."""
    await setup.store(new("a"))
    [leased] = setup.inbox.lease("orders", setup.owner, limit=1)
    setup.inbox.settle([settle_outcome(leased, handed_to("returns"))])
    assert not setup.inbox.has_due("orders")
    [taken] = setup.inbox.lease("returns", OTHER, limit=1)
    assert (taken.id, taken.attempt, taken.integration) == (leased.id, 1, "returns")


async def test_run_finds_again_what_it_failed(setup, new):
    """A run finds what it failed to handle, and claims it before its retry time."""
    await setup.store(*(new(key, body=key.encode()) for key in ("done", "failed", "dead_letter")))
    by_body = {each.body: each for each in setup.inbox.lease("orders", setup.owner, limit=3)}
    later = setup.clock() + timedelta(hours=1)
    setup.inbox.settle(
        settled([by_body[b"done"]])
        + settled([by_body[b"failed"]], "failed", retry_at=later)
        + settled([by_body[b"dead_letter"]], "dead_letter", reason="unknown item")
    )
    ids = setup.inbox.unfinished_of_run("run-1")
    assert ids == [by_body[b"failed"].id, by_body[b"dead_letter"].id]
    again = setup.inbox.lease_again(ids, setup.owner)
    assert [(each.body, each.attempt) for each in again] == [(b"failed", 1), (b"dead_letter", 1)]
    setup.inbox.settle(settled(again))
    assert setup.inbox.unfinished_of_run("run-1") == []


async def test_run_does_not_find_what_another_took(setup, new):
    """What another run has claimed since is no longer the first run's to retry."""
    await setup.store(new("a"))
    leased = setup.inbox.lease("orders", setup.owner, limit=1)
    setup.inbox.settle(settled(leased, "failed", retry_at=setup.clock()))
    ids = setup.inbox.unfinished_of_run("run-1")
    setup.inbox.lease("orders", OTHER, limit=1)
    assert setup.inbox.unfinished_of_run("run-1") == []
    assert setup.inbox.lease_again(ids, setup.owner) == []


async def test_retried_run_takes_over_from_its_dead_process(setup, new):
    """A retry of a killed run claims what that run still held, and the dead one is fenced off."""
    await setup.store(new("a"))
    dead = setup.inbox.lease("orders", setup.owner, limit=1)
    again = setup.inbox.lease_again(setup.inbox.unfinished_of_run("run-1"), setup.owner)
    assert [each.id for each in again] == [dead[0].id]
    with pytest.raises(LeasesLostError):
        setup.inbox.settle(settled(dead))
    setup.inbox.settle(settled(again))


async def test_hostile_reason(setup, new):
    """A reason that quotes hostile input is stored without what no database takes."""
    await setup.store(new("a"))
    leased = setup.inbox.lease("orders", setup.owner, limit=1)
    setup.inbox.settle(settled(leased, "dead_letter", reason="\0" + "\ud800" + "x" * 10_000))
    assert setup.statuses() == {"a": "dead_letter"}


async def test_many_owners_share_out_everything_once(setup, new):
    """Claimers at the same time never get the same delivery, and none is left over."""
    await setup.store(*(new(str(i)) for i in range(200)))
    taken: list[str] = []
    errors: list[Exception] = []

    def lease_all(name: str) -> None:
        inbox = Inbox(setup.engine, clock=setup.clock)
        try:
            while leased := inbox.lease("orders", LeaseOwner(name), limit=7):
                taken.extend(each.id for each in leased)
                inbox.settle(settled(leased))
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=lease_all, args=(f"run-{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    # SKIP LOCKED may show a claimer an empty inbox while another holds the last rows
    assert len(taken) == len(set(taken)) == 200
    assert set(setup.statuses().values()) == {"done"}


@pytest.mark.parametrize("state_database", ["sqlite"], indirect=True)
async def test_leases_stay_fast_as_the_inbox_grows(setup, new):
    """Claims, promotions and polls go by partial indexes that hold only what is waiting."""
    seen: list[str] = []

    def remember(_connection, cursor, statement, parameters, _context, _many):
        if "inbox_deliveries" in statement and not statement.startswith("INSERT"):
            rows = parameters if parameters and isinstance(parameters[0], tuple) else [parameters]
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", rows[0])
            seen.extend(row[3] for row in cursor.fetchall())

    await setup.store(*(new(str(i), ordering_key=f"k{i % 3}") for i in range(30)))
    event.listen(setup.engine, "before_cursor_execute", remember)
    setup.inbox.settle(settled(setup.inbox.lease("orders", setup.owner, limit=10)))
    event.remove(setup.engine, "before_cursor_execute", remember)
    used = " ".join(seen)
    assert "inbox_deliveries_due" in used
    assert "inbox_deliveries_head" in used
    assert "inbox_deliveries_queued" in used
    assert not [step for step in seen if step.startswith("SCAN") or "TEMP B-TREE" in step]
