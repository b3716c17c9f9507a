"""Two sides in memory, whose people edit while deliveries get lost, and the sync that mends it."""

from __future__ import annotations

import itertools
import os
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, event
from sqlalchemy.pool import StaticPool

from tasks.core.state.tables import METADATA
from tasks.core.sync.two_way.deciding import Snapshot
from tasks.core.sync.two_way.identity_map.pairs import IdentityMap
from tasks.core.sync.two_way.identity_map.sides import SIDES, other_side
from tasks.core.sync.two_way.identity_map.tables import IDS, PAIRS
from tasks.core.sync.two_way.records import ChangedMeanwhileError, FoundRecord
from tasks.core.sync.two_way.rule import ConflictRule
from tasks.core.sync.two_way.syncing import TwoWaySync

FIELDS = ("email", "name", "phone")
EPOCH = datetime(2026, 3, 1, tzinfo=UTC)


class CrashedError(Exception):
    """The process died."""


@dataclass
class Record:
    values: dict
    changed_at: dict
    version: int
    marker: str | None = None


class MemorySide:
    """One side: its records, what its people do, and the faults of the next write."""

    def __init__(self, world, side, *, chooses_ids):
        self.name = side
        self.world = world
        self.chooses_ids = chooses_ids
        self.records: dict[str, Record] = {}
        self.merged: dict[str, str] = {}
        self.ids = itertools.count(1)
        self.versions = itertools.count(1)
        self.writes = 0
        self.meanwhile = []
        self.crash = None

    # what its people do

    def add(self, values, record_id=None):
        record_id = record_id or f"{self.name[0].upper()}{next(self.ids)}"
        self._store(record_id, values, None)
        return record_id

    def edit(self, record_id, name, value):
        record = self.records[record_id]
        record.values[name] = value
        record.changed_at[name] = self.world.tick()
        record.version = next(self.versions)
        self.world.tell(self.name, record_id)

    def remove(self, record_id):
        del self.records[record_id]
        self.world.tell(self.name, record_id)

    def merge(self, loser, survivor):
        """People merge two records; what the survivor does not know it takes over."""
        lost = self.records.pop(loser)
        self.merged[loser] = survivor
        kept = self.records[survivor]
        for name in FIELDS:
            if kept.values[name] is None and lost.values[name] is not None:
                kept.values[name] = lost.values[name]
                kept.changed_at[name] = self.world.tick()
        kept.version = next(self.versions)
        self.world.tell(self.name, loser)
        self.world.tell(self.name, survivor)

    # what the sync sees

    def read(self, record_id):
        while record_id in self.merged:
            record_id = self.merged[record_id]
        return self._found(record_id) if record_id in self.records else None

    def find_made_for(self, marker):
        if self.chooses_ids:
            return None
        made = [id_ for id_, record in self.records.items() if record.marker == marker]
        return self._found(made[0]) if made else None

    def find_like(self, found):
        email = found.snapshot.values["email"]
        alike = [id_ for id_, record in self.records.items() if record.values["email"] == email]
        return [self._found(id_) for id_ in sorted(alike)] if email else []

    def chosen_id(self, other):
        return f"for-{other.id}" if self.chooses_ids else None

    def create(self, values, *, marker, record_id):
        with self._write():
            record_id = record_id if self.chooses_ids else f"{self.name[0].upper()}{next(self.ids)}"
            if record_id in self.records or self.find_made_for(marker):
                raise changed(record_id)
            self._store(record_id, values, None if self.chooses_ids else marker)
        return self._found(record_id)

    def update(self, found, values):
        with self._write():
            self._check(found)
            record = self.records[found.id]
            record.values.update(values)
            record.changed_at.update(dict.fromkeys(values, self.world.tick()))
            record.version = next(self.versions)
            self.world.tell(self.name, found.id)
        return self._found(found.id)

    def delete(self, found):
        with self._write():
            self._check(found)
            self.remove(found.id)

    def _write(self):
        return _Writing(self)

    def _check(self, found):
        record = self.records.get(found.id)
        if record is None or str(record.version) != found.version:
            raise changed(found.id)

    def _store(self, record_id, values, marker):
        self.merged.pop(record_id, None)
        whole = dict.fromkeys(FIELDS) | values
        changed_at = dict.fromkeys(FIELDS, self.world.tick())
        self.records[record_id] = Record(whole, changed_at, next(self.versions), marker)
        self.world.tell(self.name, record_id)

    def _found(self, record_id):
        record = self.records[record_id]
        snapshot = Snapshot(dict(record.values), dict(record.changed_at))
        return FoundRecord(record_id, str(record.version), snapshot, record.marker)


class _Writing:
    """People edit just before a write, and processes die just before or after it."""

    def __init__(self, side):
        self.side = side

    def __enter__(self):
        for action in self.side.meanwhile:
            action()
        self.side.meanwhile = []
        if self.side.crash == "before":
            self.side.crash = None
            raise CrashedError
        self.side.writes += 1

    def __exit__(self, kind, *_):
        if kind is None and self.side.crash == "after":
            self.side.crash = None
            raise CrashedError


def changed(record_id):
    return ChangedMeanwhileError("changed", system="memory", operation="write", record=record_id)


def as_the_state_database(connection, _record):
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")


@dataclass
class World:
    """Both sides, the deliveries under way, and one clock."""

    rule: ConflictRule = field(default_factory=ConflictRule)
    now: int = 0
    deliveries: list = field(default_factory=list)

    def __post_init__(self):
        self.left = MemorySide(self, "left", chooses_ids=False)
        self.right = MemorySide(self, "right", chooses_ids=True)
        self.sides = {"left": self.left, "right": self.right}
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        event.listen(self.engine, "connect", as_the_state_database)
        METADATA.create_all(self.engine, tables=[PAIRS, IDS])
        self.identities = IdentityMap(self.engine, "contacts")
        self.sync = TwoWaySync(self.identities, self.left, self.right, self.rule)

    def tick(self):
        self.now += 1
        return EPOCH + timedelta(seconds=self.now)

    def tell(self, side, record_id):
        self.deliveries.append((side, record_id))

    def deliver(self, index=0):
        side, record_id = self.deliveries.pop(index % len(self.deliveries))
        return self.handle(side, record_id)

    def handle(self, side, record_id):
        try:
            return self.sync.sync(side, record_id)
        except (CrashedError, ChangedMeanwhileError):
            return None  # the delivery is tried again, or lost

    def deliver_all(self):
        done = []
        for _ in range(1000):
            if not self.deliveries:
                return done
            done += [self.deliver()]
        raise AssertionError("deliveries go round in circles")

    def reconcile(self):
        """What the scheduled flow does: list both sides, bring in step what differs or is gone."""
        seen = {}
        for side in SIDES:
            found = {id_: self.sides[side].read(id_).snapshot for id_ in self.sides[side].records}
            seen[side] = set(found)
            for record_id in self.sync.find_differing(side, found):
                self.sync.sync(side, record_id, follows_deletions=False)
        after = ""
        while after is not None:
            unseen, after = self.sync.find_unseen(seen, after=after, limit=3)
            for side, record_id in unseen:
                self.sync.sync(side, record_id)

    def contents(self, side):
        found = [tuple(record.values.values()) for record in self.sides[side].records.values()]
        return sorted(found, key=repr)

    def pair_of(self, side, record_id):
        return self.identities.find(side, record_id)

    def close(self):
        self.engine.dispose()


@pytest.fixture
def world():
    world = World()
    yield world
    world.close()


def test_a_new_record_is_made_on_the_other_side_once(world):
    """Its event may come twice, and the echo of our own write does nothing."""
    world.left.add({"email": "a@x", "name": "Ada"})
    world.deliveries *= 2
    world.deliver_all()
    assert world.contents("left") == world.contents("right") == [("a@x", "Ada", None)]
    assert (world.left.writes, world.right.writes) == (0, 1)


def test_who_is_known_on_both_sides_is_one(world):
    """Records with the same e-mail are paired, not doubled."""
    world.left.add({"email": "a@x", "name": "Ada"})
    world.right.add({"email": "a@x", "name": None, "phone": "1"})
    world.deliver_all()
    assert world.contents("left") == world.contents("right") == [("a@x", "Ada", "1")]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("origin", SIDES)
def test_a_creation_that_dies_is_found_again(world, origin, when):
    """A process that dies at a creation leaves no second record behind."""
    record_id = world.sides[origin].add({"email": None, "name": "Ada"})
    world.sides[other_side(origin)].crash = when
    world.handle(origin, record_id)
    world.deliver_all()
    assert world.contents("left") == world.contents("right") == [(None, "Ada", None)]


def test_the_others_event_of_our_creation_is_known_before_it_is_seen_through(world):
    """The event of what we made comes before we know its id: no third record comes of it."""
    world.right.add({"email": None, "name": "Ada"})
    world.left.crash = "after"
    world.deliver()
    assert len(world.left.records) == 1
    assert world.deliver().done == ()
    assert len(world.left.records) == len(world.right.records) == 1


def test_a_change_meanwhile_is_never_overwritten(world):
    """Whatever people do between our reading and our writing is taken into account."""
    record_id = world.left.add({"email": "a@x", "name": "Ada", "phone": "1"})
    world.deliver_all()
    [other_id] = world.right.records
    world.left.edit(record_id, "phone", "2")
    world.right.meanwhile = [
        lambda: world.right.edit(other_id, "phone", "3"),
        lambda: world.right.edit(other_id, "name", "Eve"),
    ]
    world.deliver_all()
    assert world.contents("left") == world.contents("right") == [("a@x", "Eve", "3")]


def test_deletions_and_their_late_events(world):
    """A deletion goes over; older events that come after it bring nothing back."""
    record_id = world.left.add({"email": "a@x"})
    world.deliver_all()
    world.left.edit(record_id, "name", "Ada")
    late = list(world.deliveries)
    world.deliver_all()
    world.left.remove(record_id)
    world.deliver_all()
    world.deliveries = late
    world.deliver_all()
    world.reconcile()
    assert world.contents("left") == world.contents("right") == []
    assert world.pair_of("left", record_id).deleted_at is not None


def test_a_record_that_is_made_anew_under_its_old_id_is_new(world):
    """After a deletion the same id may come back, and both sides have it again."""
    record_id = world.right.add({"email": "a@x", "name": "Ada"})
    world.deliver_all()
    world.right.remove(record_id)
    world.deliver_all()
    world.right.add({"email": "a@x", "name": "Ada 2"}, record_id)
    world.deliver_all()
    assert world.contents("left") == world.contents("right") == [("a@x", "Ada 2", None)]


def merged_pair(world):
    first = world.left.add({"email": "a@x", "name": "Ada", "phone": "1"})
    second = world.left.add({"email": "b@x", "name": "Bea"})
    world.deliver_all()
    return first, second


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("is_lost", [False, True])
def test_merged_records_are_merged_on_the_other_side(world, side, is_lost):
    """Both ids lead to the record that stays, also if the event of the merge got lost."""
    merged_pair(world)
    loser, survivor = world.sides[side].records
    world.sides[side].merge(loser, survivor)
    if is_lost:
        world.deliveries.clear()
        world.reconcile()
    world.deliver_all()
    assert world.contents("left") == world.contents("right") == [("b@x", "Bea", "1")]
    assert world.pair_of(side, loser).id == world.pair_of(side, survivor).id


def test_changes_of_a_record_that_is_merged_away_are_not_lost(world):
    """What people changed on the other side goes into the record that stays."""
    first, second = merged_pair(world)
    world.right.edit(world.pair_of("left", first).right, "name", "Ada B")
    world.deliveries.clear()
    world.left.merge(first, second)
    world.deliver_all()
    assert world.contents("left") == world.contents("right") == [("b@x", "Ada B", "1")]


def test_merges_of_both_sides_in_opposite_directions(world):
    """Left merges the first into the second, right the second into the first: one stays."""
    first, second = merged_pair(world)
    right_first, right_second = (world.pair_of("left", id_).right for id_ in (first, second))
    world.left.merge(first, second)
    world.right.merge(right_second, right_first)
    world.deliver_all()
    assert len(world.left.records) == len(world.right.records) == 1
    assert world.contents("left") == world.contents("right")


def test_a_record_is_merged_into_one_whose_creation_was_not_seen_through(world):
    """The process dies at a creation, and people merge another record into what it made."""
    world.right.add({"email": None, "name": "Ada"})
    world.left.crash = "after"
    world.deliver()
    [made] = world.left.records
    other = world.left.add({"email": "b@x", "name": "Bea"})
    world.deliver(-1)
    world.left.merge(other, made)
    world.deliver(-1)
    world.deliver_all()
    world.reconcile()
    assert len(world.left.records) == len(world.right.records) == 1
    assert world.contents("left") == world.contents("right")


def test_an_id_that_was_merged_away_may_be_used_again(world):
    """A record that comes back under the id of a merged one is a record of its own."""
    first, second = merged_pair(world)
    right_first = world.pair_of("left", first).right
    world.left.merge(first, second)
    world.deliver_all()
    world.right.add({"email": "c@x", "name": "Cleo"}, right_first)
    world.deliver_all()
    assert world.contents("left") == world.contents("right")
    assert len(world.left.records) == 2


# The property: whatever happens, both sides end equal, and no change is lost against the rule.

RULES = (
    ConflictRule(),
    ConflictRule(at_same_time="right", deletion="wins"),
    ConflictRule(owners={"phone": "left"}),
    ConflictRule(owners={"phone": "right", "name": "left"}),
)
# more of them, and others each time: TWO_WAY_EXAMPLES=5000
EXAMPLES = int(os.environ.get("TWO_WAY_EXAMPLES", "160"))
IS_USUAL = "TWO_WAY_EXAMPLES" not in os.environ


@dataclass(frozen=True)
class Edit:
    """One person's change of one field; its value is like no other."""

    at: int
    side: str
    record_id: str
    name: str
    value: str


class History:
    """Plays what happens, and says in the end what must have become of it."""

    def __init__(self, rule, chance):
        self.world = World(rule)
        self.chance = chance
        self.edits: list[Edit] = []
        self.removed: set = set()
        self.merged: dict = {}
        self.deletions: list = []
        self.in_step_at: dict = {}
        self.has_crashed = False
        self.counter = itertools.count(1)

    def play(self, steps):
        acts = {
            self.create: 4, self.edit: 10, self.remove: 2, self.merge: 2, self.deliver: 14,
            self.lose: 3, self.repeat: 3, self.reorder: 3, self.meanwhile: 3, self.crash: 1,
            self.reconcile: 1,
        }  # fmt: skip
        for act in self.chance.choices(list(acts), list(acts.values()), k=steps):
            act()

    def end(self):
        """Nobody edits any more; what is under way arrives or not, and reconciling mends it."""
        for side in self.world.sides.values():
            side.meanwhile, side.crash = [], None
        while self.world.deliveries:
            if self.chance.random() < 0.3:
                self.world.deliveries.pop()
            else:
                self.deliver()
        for _ in range(4):
            self.world.reconcile()
        self.world.deliver_all()

    def create(self):
        side = self.chance.choice(SIDES)
        values = {"name": self._value("name")}
        if self.chance.random() < 0.8:
            # the same e-mails on both sides, so that some are the same person
            values["email"] = f"{self.chance.choice('abcdef')}@x"
        if self.chance.random() < 0.5:
            values["phone"] = self._value("phone")
        record_id = self.world.sides[side].add(values)
        for name, value in values.items():
            self.edits.append(Edit(self.world.now, side, record_id, name, value))

    def edit(self, node=None):
        node = node or self._node()
        if node is None or node[1] not in self.world.sides[node[0]].records:
            return
        side, record_id = node
        name = self.chance.choice(FIELDS)
        value = self._value(name)
        self.world.sides[side].edit(record_id, name, value)
        self.edits.append(Edit(self.world.now, side, record_id, name, value))

    def remove(self):
        node = self._node()
        if node is None:
            return
        side, record_id = node
        self.deletions = [one for one in self.deletions if node not in one]
        pair = self.world.pair_of(side, record_id)
        other_id = pair and pair.id_of(other_side(side))
        if pair is not None and pair.id_of(side) == record_id and other_id:
            other = (other_side(side), other_id)
            self.deletions = [one for one in self.deletions if other not in one]
            if other_id in self.world.sides[other[0]].records and node in self.in_step_at:
                self.deletions.append((node, other, self.in_step_at[node]))
        self.world.sides[side].remove(record_id)
        self.removed.add(node)

    def merge(self):
        side = self.chance.choice(SIDES)
        if len(self.world.sides[side].records) < 2:
            return
        loser, survivor = self.chance.sample(sorted(self.world.sides[side].records), 2)
        self.world.sides[side].merge(loser, survivor)
        self.merged |= dict.fromkeys([(side, loser), (side, survivor)], self.world.now)

    def deliver(self):
        if self.world.deliveries:
            self.world.deliver()
            self._note_what_is_in_step()

    def lose(self):
        if self.world.deliveries:
            self.world.deliveries.pop(self.chance.randrange(len(self.world.deliveries)))

    def repeat(self):
        if self.world.deliveries:
            self.world.deliveries.append(self.chance.choice(self.world.deliveries))

    def reorder(self):
        self.chance.shuffle(self.world.deliveries)

    def meanwhile(self):
        node = self._node()
        if node is not None:
            self.world.sides[self.chance.choice(SIDES)].meanwhile = [lambda: self.edit(node)]

    def crash(self):
        self.world.sides[self.chance.choice(SIDES)].crash = self.chance.choice(["before", "after"])
        self.has_crashed = True

    def reconcile(self):
        for side in self.world.sides.values():
            side.crash = None
        self.world.reconcile()
        self._note_what_is_in_step()

    def check(self):
        world = self.world
        assert world.contents("left") == world.contents("right")
        writes = world.left.writes + world.right.writes
        world.reconcile()
        world.deliver_all()
        assert world.left.writes + world.right.writes == writes, "it never comes to rest"
        pairs = [(pair.left, pair.right) for pair in world.identities.page(limit=10_000)]
        assert sorted(left for left, _ in pairs) == sorted(world.left.records)
        assert sorted(right for _, right in pairs) == sorted(world.right.records)
        for left, right in pairs:
            assert world.left.records[left].values == world.right.records[right].values
            self._check_values(world.pair_of("left", left))
        self._check_deletions()

    def _check_values(self, pair):
        mine = [e for e in self.edits if self._belongs(e, pair)]
        nodes = {(e.side, e.record_id) for e in mine} | {("left", pair.left), ("right", pair.right)}
        there = {("left", pair.left), ("right", pair.right)} - self.removed
        # what a merge made of earlier changes was for those who merged to say
        merged_at = max((self.merged.get(node, 0) for node in nodes), default=0)
        for name in FIELDS:
            owner = self.world.rule.owners.get(name)
            value = self.world.left.records[pair.left].values[name]
            edits = [e for e in mine if e.name == name]
            lasting = [e for e in edits if (e.side, e.record_id) in there and e.at > merged_at]
            if value is None:
                assert not [e for e in lasting if owner in (None, e.side)]
                continue
            [winner] = [e for e in edits if e.value == value][-1:] or [None]
            assert winner is not None, f"{value!r} is of another record"
            if owner is None:
                newest = max((e.at for e in lasting), default=0)
                assert winner.at >= newest, f"{winner} won over a newer change"
            elif nodes == there and not merged_at and any(e.side == owner for e in lasting):
                assert winner == max((e for e in lasting if e.side == owner), key=lambda e: e.at), (
                    "an owner's change was lost"
                )

    def _belongs(self, edit, pair):
        """Whether its record is of the pair, or people merged it into one that is."""
        record_id = edit.record_id
        while record_id is not None:
            if self.world.pair_of(edit.side, record_id) == pair:
                return True
            record_id = self.world.sides[edit.side].merged.get(record_id)
        return False

    def _check_deletions(self):
        for node, other, in_step_at in self.deletions:
            if other in self.removed or self.has_crashed or self._was_merged(node, other):
                continue
            later = [
                e for e in self.edits
                if (e.side, e.record_id) == other
                and e.at > in_step_at
                and self.world.rule.owners.get(e.name) != node[0]
            ]  # fmt: skip
            is_there = other[1] in self.world.sides[other[0]].records
            outlives = bool(later) and self.world.rule.deletion == "loses"
            assert is_there == outlives, "deleted in vain" if is_there else "a change was deleted"

    def _was_merged(self, *nodes):
        pairs = [self.world.pair_of(*node) for node in nodes]
        return any(node in nodes or self.world.pair_of(*node) in pairs for node in self.merged)

    def _note_what_is_in_step(self):
        for pair in self.world.identities.page(limit=10_000):
            left = self.world.left.records.get(pair.left)
            right = self.world.right.records.get(pair.right)
            if left and right and left.values == right.values:
                for node in (("left", pair.left), ("right", pair.right)):
                    self.in_step_at[node] = self.world.now

    def _node(self):
        nodes = [(side, id_) for side in SIDES for id_ in sorted(self.world.sides[side].records)]
        return self.chance.choice(nodes) if nodes else None

    def _value(self, name):
        return f"{name}-{next(self.counter)}"


@pytest.mark.parametrize("rule", RULES, ids=["newest", "deletion-wins", "owner", "owners"])
@settings(max_examples=max(1, EXAMPLES // len(RULES)), derandomize=IS_USUAL)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 60))
def test_both_sides_always_converge_and_no_change_is_lost(rule, seed, steps):
    """Edits, deletions and merges on both sides; deliveries lost, repeated and reordered; crashes.

    In the end both sides hold the same, at rest; each field has the value that the rule says; what
    was deleted stays deleted unless a change outlives it.
    """
    history = History(rule, random.Random(seed))
    try:
        history.play(steps)
        history.end()
        history.check()
    finally:
        history.world.close()
