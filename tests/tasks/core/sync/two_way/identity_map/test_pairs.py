"""The identity map: which record of one side is which of the other."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from blocks.errors import LeaseLostError, UpstreamBusyError
from tasks.core.state.database import reading
from tasks.core.sync.two_way.identity_map.pairs import IdentityMap
from tasks.core.sync.two_way.identity_map.rows import PairedOtherwiseError


class Clock:
    def __init__(self):
        self.now = datetime(2026, 3, 1, 9, tzinfo=UTC)

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def identities(state_database, clock):
    return IdentityMap(state_database, "contacts", lease_s=60, clock=clock)


def paired(identities, left, right, state=None):
    with identities.lease(left=left) as pair:
        pair.store(right=right, state=state or {})
        return pair.id


def test_a_pair_is_found_by_either_side(identities):
    """What was kept of a pair is found by the id of its left and of its right record."""
    id_ = paired(identities, "L1", "R1", {"digest": "abc"})
    for found in (identities.find("left", "L1"), identities.find("right", "R1")):
        assert (found.id, found.left, found.right) == (id_, "L1", "R1")
        assert (found.state, found.deleted_at) == ({"digest": "abc"}, None)
    assert identities.find("left", "R1") is None
    assert identities.get(id_) == identities.find("left", "L1")
    assert identities.get("unknown") is None


def test_kinds_do_not_meet(identities, state_database):
    """Ids of one kind of record say nothing of another kind."""
    paired(identities, "L1", "R1")
    others = IdentityMap(state_database, "tickets")
    assert others.find("left", "L1") is None
    with others.lease(left="L1") as pair:
        assert pair.right is None


def test_a_record_of_which_nothing_was_kept_leaves_no_trace(identities):
    """Looking at an unknown record makes no pair; keeping something does."""
    with identities.lease(left="L1"):
        pass
    assert identities.find("left", "L1") is None
    with identities.lease(left="L1") as pair:
        pair.store()
    assert identities.find("left", "L1").right is None


def test_a_leased_pair_is_busy_for_others(identities, clock):
    """While a pair is held nobody else gets it; afterwards everybody may."""
    with identities.lease(left="L1") as pair:
        pair.store(right="R1")
        with pytest.raises(UpstreamBusyError), identities.lease(right="R1"):
            pass
        with pytest.raises(UpstreamBusyError), identities.lease_pair(pair.id):
            pass
    with identities.lease(right="R1") as again:
        clock.advance(59)
        with pytest.raises(UpstreamBusyError), identities.lease(left="L1"):
            pass
    assert again.left == "L1"


def test_an_error_lets_the_pair_go(identities):
    """A block that ends with an error holds the pair no longer."""

    def fail():
        with identities.lease(left="L1") as pair:
            pair.store(right="R1")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with identities.lease(left="L1") as pair:
        assert pair.right == "R1"


def test_a_lost_lease_keeps_nothing(identities, clock):
    """Whoever held a pair for too long can change nothing once another took it."""
    with identities.lease(left="L1") as slow:
        slow.store(right="R1")
        clock.advance(61)
        with identities.lease(left="L1") as quick:
            with pytest.raises(LeaseLostError):
                slow.store(right="R2")
            with pytest.raises(LeaseLostError):
                slow.drop_id("right")
            quick.store(state={"by": "quick"})
    assert identities.find("left", "L1").state == {"by": "quick"}
    assert identities.find("left", "L1").right == "R1"


def test_keeping_extends_the_lease(identities, clock):
    """A pair that is worked on stays held beyond the first lease."""
    with identities.lease(left="L1") as pair:
        for _ in range(3):
            clock.advance(50)
            pair.store()
        with pytest.raises(UpstreamBusyError), identities.lease(left="L1"):
            pass


def test_many_at_once_make_one_pair(state_database):
    """Of eight threads that meet a new record at once one makes its pair, and the others see it."""
    start = threading.Barrier(8)
    made, busy = [], []

    def lease():
        identities = IdentityMap(state_database, "contacts")
        start.wait()
        for _ in range(1000):
            try:
                with identities.lease(left="L1") as pair:
                    if pair.right is None:
                        made.append(pair.id)
                        pair.store(right="R1")
                    return
            except UpstreamBusyError:
                busy.append(1)

    threads = [threading.Thread(target=lease) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert identities_of(state_database) == [("L1", "R1")]


def identities_of(engine):
    return [(pair.left, pair.right) for pair in IdentityMap(engine, "contacts").page()]


def test_one_record_is_never_in_two_pairs(identities):
    """A record that another pair has cannot be kept, and then nothing of that call is."""
    paired(identities, "L1", "R1")
    with identities.lease(left="L2") as pair, pytest.raises(PairedOtherwiseError):
        pair.store(right="R1", state={"lost": True})
    assert identities.find("left", "L2") is None
    assert identities.find("right", "R1").left == "L1"


def test_a_record_that_is_made_anew_is_found_by_its_former_id(identities):
    """Old ids lead to the pair, which knows the newest one, and may become current again."""
    paired(identities, "L1", "R1")
    with identities.lease(left="L1") as pair:
        pair.store(right="R2")
    assert identities.find("right", "R1").right == "R2"
    with identities.lease(right="R1") as pair:
        pair.store(right="R1")
    assert identities.find("right", "R2").right == "R1"
    with identities.lease(right="R2") as pair:
        pair.drop_id("right")
        assert pair.right is None
    assert identities.find("right", "R1").right is None


def test_a_former_id_may_go_to_another_record(identities):
    """A former id that was given to a new record can have a pair of its own; a current one not."""
    paired(identities, "L1", "R1")
    with identities.lease(left="L1") as pair:
        pair.store(right="R2")
        pair.forget_former("right", "R1")
        pair.forget_former("right", "R2")
    assert identities.find("right", "R1") is None
    assert identities.find("right", "R2").left == "L1"


def test_merged_records_become_one_pair(identities):
    """After a merge all ids lead to the surviving pair, whose own ids stay the current ones."""
    survivor = paired(identities, "L1", "R1", {"of": "survivor"})
    paired(identities, "L2", "R2")
    with identities.lease(left="L1") as pair, identities.lease(left="L2") as other:
        pair.absorb(other)
    for side, record_id in (("left", "L2"), ("right", "R2"), ("left", "L1"), ("right", "R1")):
        found = identities.find(side, record_id)
        assert (found.id, found.left, found.right) == (survivor, "L1", "R1")
        assert found.state == {"of": "survivor"}
    assert len(identities.page()) == 1


def test_a_half_pair_gives_its_record_away(identities):
    """Absorbing a pair that has what is missing here completes this one."""
    with identities.lease(left="L1") as pair, identities.lease(right="R1") as other:
        pair.store()
        other.store()
        pair.absorb(other)
        assert (pair.left, pair.right) == ("L1", "R1")
    assert identities.find("right", "R1").left == "L1"


def test_a_tombstone_stays_known(identities):
    """A deleted pair is still found, is on no page, and can be revived."""
    paired(identities, "L1", "R1")
    with identities.lease(left="L1") as pair:
        pair.store(is_deleted=True)
    assert identities.find("right", "R1").deleted_at == datetime(2026, 3, 1, 9, tzinfo=UTC)
    assert identities.page() == []
    with identities.lease(left="L1") as pair:
        pair.store(is_deleted=False)
    assert [one.left for one in identities.page()] == ["L1"]


def test_pages(identities):
    """Paging by the last id gives every pair once."""
    for number in range(7):
        paired(identities, f"L{number}", f"R{number}")
    seen, after = [], ""
    while page := identities.page(after=after, limit=3):
        seen += [pair.left for pair in page]
        after = page[-1].id
    assert sorted(seen) == [f"L{number}" for number in range(7)]
    assert len(seen) == 7
    assert identities.find_all("right", ["R1", "R5", "R9"]).keys() == {"R1", "R5"}
    assert identities.find_all("right", []) == {}


def test_nothing_of_a_forgotten_pair_stays(identities, state_database):
    """An absorbed or forgotten pair leaves no row behind."""
    with identities.lease(left="L1"):
        pass
    with reading(state_database) as connection:
        for table in ("identity_pairs", "identity_ids"):
            count = connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()
            assert count == 0
