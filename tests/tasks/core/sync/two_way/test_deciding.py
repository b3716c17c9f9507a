"""The decision what to write where, on states alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tasks.core.sync.two_way.deciding import (
    Known,
    Snapshot,
    Write,
    decide,
    digest_of,
    in_step,
    join,
    look,
)
from tasks.core.sync.two_way.memory import remembered, to_remember
from tasks.core.sync.two_way.rule import ConflictRule

SALT = "pair-1"
LEAVE = Write()
NEWEST = ConflictRule()


def at(minute):
    return datetime(2026, 3, 1, 9, tzinfo=UTC) + timedelta(minutes=minute)


def record(minutes=(), **values):
    """A record; `minutes` says when fields were changed, others at minute 0."""
    return Snapshot(values, {name: at(dict(minutes).get(name, 0)) for name in values})


def seen(snapshot, was=None, sent=None):
    known = Known() if was is None else in_step(was, SALT)
    return look(snapshot, known if sent is None else known.sending(sent, SALT), SALT)


BASE = {"name": "Ada", "phone": "1"}


def both(left, right, rule=NEWEST):
    """The decision for two records that were in step as BASE."""
    return decide(seen(left, BASE), seen(right, BASE), rule)


def test_nothing_new_needs_nothing_done():
    """Sides that hold what was in step are left alone: our own writes come back to this."""
    decision = both(record(**BASE), record(**BASE))
    assert (decision.left, decision.right, decision.conflicts) == (LEAVE, LEAVE, ())


@pytest.mark.parametrize("minute", [-60, 60])
def test_a_change_on_one_side_goes_to_the_other_whatever_the_clocks_say(minute):
    """Only what is new counts, so a clock that is wrong by an hour loses nothing."""
    changed = record({"phone": minute}, name="Ada", phone="2")
    assert both(changed, record(**BASE)).right == Write("update", {"phone": "2"})
    assert both(record(**BASE), changed).left == Write("update", {"phone": "2"})


def test_changes_of_different_fields_are_no_conflict():
    """Each side's change goes to the other one."""
    decision = both(record(name="Ada B", phone="1"), record(name="Ada", phone="2"))
    assert decision.left == Write("update", {"phone": "2"})
    assert decision.right == Write("update", {"name": "Ada B"})
    assert decision.conflicts == ()


def test_of_two_changes_of_a_field_the_newest_wins():
    """Field by field, by the instant of each."""
    left = record({"name": 5, "phone": 1}, name="Ada L", phone="L")
    right = record({"name": 1, "phone": 5}, name="Ada R", phone="R")
    decision = both(left, right)
    assert decision.left == Write("update", {"phone": "R"})
    assert decision.right == Write("update", {"name": "Ada L"})
    assert decision.conflicts == ("name", "phone")


@pytest.mark.parametrize("side", ["left", "right"])
def test_changes_of_the_same_instant_are_decided_by_the_rule(side):
    """So that both directions of an integration decide alike."""
    left, right = record(name="Ada", phone="L"), record(name="Ada", phone="R")
    decision = both(left, right, ConflictRule(at_same_time=side))
    expected = {"left": (LEAVE, Write("update", {"phone": "L"}))}
    expected["right"] = (Write("update", {"phone": "R"}), LEAVE)
    assert (decision.left, decision.right) == expected[side]


def test_an_owner_prevails_even_over_a_newer_change():
    """What the other side says of an owned field never counts, and is set back."""
    rule = ConflictRule(owners={"phone": "left"})
    newer = record({"phone": 60}, name="Ada", phone="R")
    assert both(record(**BASE), newer, rule).right == Write("update", {"phone": "1"})
    assert both(record(**BASE), newer, rule).left == LEAVE
    changed = record(name="Ada", phone="L")
    assert both(changed, newer, rule).right == Write("update", {"phone": "L"})


def test_the_same_change_on_both_sides_needs_nothing_done():
    """Equal values are in step however they came about."""
    same = record(name="Ada", phone="2")
    assert both(same, same).conflicts == ()
    assert both(same, same).left == LEAVE


def test_a_field_can_be_emptied():
    """None is a value like others once the sides were in step."""
    decision = both(record(name="Ada", phone=None), record(**BASE))
    assert decision.right == Write("update", {"phone": None})


def test_a_side_may_keep_its_own_form():
    """A value that a side stores in another form is not written again and again."""
    left = seen(record(name="ADA", phone="1"), {"name": "ADA", "phone": "1"})
    decision = decide(left, seen(record(**BASE), BASE), NEWEST)
    assert (decision.left, decision.right) == (LEAVE, LEAVE)


def test_who_meet_for_the_first_time_complete_each_other():
    """What one side does not know the other one fills in; what both know, the newest says."""
    left = seen(record({"name": 5}, name="Ada L", phone=None, city="Ulm"))
    right = seen(record({"name": 1}, name="Ada R", phone="R", city=None))
    decision = decide(left, right, NEWEST)
    assert decision.left == Write("update", {"phone": "R"})
    assert decision.right == Write("update", {"name": "Ada L", "city": "Ulm"})


def test_a_new_record_is_created_with_what_it_has():
    """Empty fields are not sent along."""
    decision = decide(seen(record(name="Ada", phone=None)), seen(None), NEWEST)
    assert (decision.left, decision.right) == (LEAVE, Write("create", {"name": "Ada"}))


def test_a_deletion_goes_to_the_other_side():
    """A record that was in step and is gone is deleted there, too."""
    assert both(None, record(**BASE)).right == Write("delete")
    assert both(record(**BASE), None).left == Write("delete")
    assert both(None, None).left == LEAVE


def test_a_change_outlives_a_deletion_unless_the_rule_says_otherwise():
    """A change since the sides were in step brings the record back, with all its fields."""
    changed = record(name="Ada", phone="2")
    decision = both(None, changed)
    assert (decision.left, decision.right) == (
        Write("create", {"name": "Ada", "phone": "2"}),
        LEAVE,
    )
    assert both(None, changed, ConflictRule(deletion="wins")).right == Write("delete")


def test_a_change_that_never_counts_does_not_outlive_a_deletion():
    """A field that is owned by the side that deleted the record brings nothing back."""
    rule = ConflictRule(owners={"phone": "left"})
    assert both(None, record(name="Ada", phone="2"), rule).right == Write("delete")
    assert both(None, record(name="Ada", phone="2"), ConflictRule({"phone": "right"})).left.action


def test_a_creation_that_was_not_seen_through_is_no_deletion():
    """A record that was set out to be made, and is not there, was never there."""
    there = seen(record(**BASE))
    assert decide(there, seen(None, sent=BASE), NEWEST).right == Write("create", BASE)


def test_our_own_unfinished_write_is_no_change_of_people():
    """After a crash between writes, what we wrote gives way to what people changed since."""
    # phone L was written to the right side, and then the left side changed again
    left = seen(record({"phone": 2}, name="Ada", phone="L2"), BASE)
    right = seen(record({"phone": 9}, name="Ada", phone="L"), BASE, sent={"phone": "L"})
    decision = decide(left, right, NEWEST)
    assert (decision.left, decision.right) == (LEAVE, Write("update", {"phone": "L2"}))
    # … or was set back to what was in step
    left = seen(record(**BASE), BASE)
    assert decide(left, right, NEWEST).right == Write("update", {"phone": "1"})
    # … or people changed the right side, too
    right = seen(record({"phone": 9}, name="Ada", phone="R"), BASE, sent={"phone": "L"})
    left = seen(record({"phone": 2}, name="Ada", phone="L"), BASE)
    assert decide(left, right, NEWEST).left == Write("update", {"phone": "R"})


def test_changes_of_a_record_that_is_merged_count():
    """The newest change wins among the merged records, and only their changes do."""
    survivor = seen(record({"name": 3}, name="Ada B", phone="1"), BASE)
    merged = look(
        record({"name": 1, "phone": 2}, name="Ada C", phone="2"),
        in_step({"name": "Ada X", "phone": "9"}, "pair-2"),
        "pair-2",
    )
    joined = join(survivor, merged)
    decision = decide(seen(record(**BASE), BASE), joined, NEWEST)
    assert decision.left == Write("update", {"name": "Ada B", "phone": "2"})
    assert decision.right == Write("update", {"phone": "2"})


def test_what_is_remembered_survives_being_kept():
    """Only digests are kept, and they read back the same."""
    known = {"left": in_step(BASE, SALT), "right": Known().sending({"phone": "L"}, SALT)}
    kept = to_remember(known)
    assert "Ada" not in str(kept)
    assert remembered(kept) == known
    assert remembered({}) == {"left": Known(), "right": Known()}


def test_digests_of_two_pairs_differ():
    """Equal values of two pairs cannot be told from what is kept of them."""
    assert digest_of("name", "Ada", "pair-1") != digest_of("name", "Ada", "pair-2")
