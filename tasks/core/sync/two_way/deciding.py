"""Decides what to write where, from both records as they are and what was last in step.

It looks at states, never at the event that asked for a look. So an event that comes twice, late,
in another order or not at all does no harm, and our own writes, coming back as events, find
nothing to do. For each field, with "changed" meaning since the sides were last in step:

    changed on neither side    nothing to do
    changed on one side        it goes to the other one, unless that owns the field
    changed on both sides      the owner's; without an owner the newest
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, TypeAlias

from tasks.core.sync.two_way.identity_map.sides import Side
from tasks.core.sync.two_way.rule import ConflictRule

Value: TypeAlias = Any  # what JSON can say; None for nothing


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A record as one side has it.

    Attributes:
        values: Field, by the name that both sides share, to its value in the form that both
            share: two values mean the same exactly if they are equal.
        changed_at: Field to when it was changed last, as far as that side tells: aware instants.
    """

    values: Mapping[str, Value]
    changed_at: Mapping[str, datetime]


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of one side of a pair: digests only, no content.

    Attributes:
        in_step: Field to the digest of its value when both sides were last in step; empty if
            they never were.
        sent: Field to the digests of what we set out to write since then. What a side holds of
            these is our doing, no change by its people.
    """

    in_step: Mapping[str, str] = field(default_factory=dict)
    sent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def sending(self, values: Mapping[str, Value], salt: str) -> Known:
        """The same after we have set out to write these values."""
        sent = dict(self.sent)
        for name, value in values.items():
            digest = digest_of(name, value, salt)
            if digest not in sent.get(name, ()):
                sent[name] = (*sent.get(name, ()), digest)
        return replace(self, sent=sent)


@dataclass(frozen=True, slots=True)
class Seen:
    """One side of a pair as it was read, and what is news of it.

    Attributes:
        stored: Field to value as it is stored; None if there is no such record.
        snapshot: What counts as this side's record: the stored one, with the changes of those
            that were merged into it.
        changed: Fields that its people have changed since the sides were in step.
        unsettled: Fields that hold what we wrote before we could see the whole through.
        was_there: The sides were in step once: a record that is missing was deleted.
    """

    stored: Mapping[str, Value] | None
    snapshot: Snapshot | None
    changed: frozenset[str]
    unsettled: frozenset[str]
    was_there: bool


@dataclass(frozen=True, slots=True)
class Write:
    """What to do to one side.

    Attributes:
        action: "create" has all values that are not None, "update" those that differ.
        values: Field to value.
    """

    action: Literal["leave", "create", "update", "delete"] = "leave"
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do to both sides; afterwards they are in step.

    Attributes:
        left: To the left record.
        right: To the right record.
        conflicts: Fields that both sides had changed to different values, in order.
    """

    left: Write
    right: Write
    conflicts: tuple[str, ...] = ()


def digest_of(name: str, value: Value, salt: str) -> str:
    """16 hexadecimal characters by which a field's value is known again.

    Args:
        name: The field.
        value: Its value.
        salt: The pair's id, so that equal values of two pairs cannot be told from their digests.
    """
    text = json.dumps([salt, name, value], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def in_step(values: Mapping[str, Value], salt: str) -> Known:
    """What to remember of a side that is in step with the other one."""
    return Known({name: digest_of(name, value, salt) for name, value in values.items()})


def look(snapshot: Snapshot | None, known: Known, salt: str) -> Seen:
    """See what is news of a side.

    Args:
        snapshot: The record, None if there is none.
        known: What is remembered of it.
        salt: As in `digest_of`.
    """
    was_there = bool(known.in_step)
    if snapshot is None:
        return Seen(None, None, frozenset(), frozenset(), was_there)
    changed, unsettled = set(), set()
    for name, value in snapshot.values.items():
        digest = digest_of(name, value, salt)
        if known.in_step.get(name) == digest:
            continue
        if digest in known.sent.get(name, ()):
            unsettled.add(name)
        elif value is not None or name in known.in_step:
            changed.add(name)
    return Seen(snapshot.values, snapshot, frozenset(changed), frozenset(unsettled), was_there)


def join(record: Seen, merged: Seen) -> Seen:
    """A record with the newer changes of another one of its side that shall be merged into it."""
    if record.snapshot is None or merged.snapshot is None:
        return record if merged.snapshot is None else merged
    taken = {
        name
        for name in merged.changed
        if _instant(merged.snapshot, name) > _instant(record.snapshot, name)
    }
    values, changed_at = dict(record.snapshot.values), dict(record.snapshot.changed_at)
    for name in taken:
        values[name] = merged.snapshot.values[name]
        changed_at[name] = _instant(merged.snapshot, name)
    return Seen(
        record.stored,
        Snapshot(values, changed_at),
        record.changed | taken,
        record.unsettled - taken,
        record.was_there or merged.was_there,
    )


def decide(left: Seen, right: Seen, rule: ConflictRule) -> Decision:
    """What to write where so that both sides are in step."""
    if left.snapshot is None and right.snapshot is None:
        return Decision(Write(), Write())
    if left.snapshot is None:
        to_right, to_left = _one_is_missing(right, left, "left", rule)
        return Decision(to_left, to_right)
    if right.snapshot is None:
        to_left, to_right = _one_is_missing(left, right, "right", rule)
        return Decision(to_left, to_right)
    left_values, right_values = dict(left.snapshot.values), dict(right.snapshot.values)
    conflicts = []
    for name in sorted(left_values.keys() & right_values.keys()):
        if left_values[name] == right_values[name]:
            continue
        if name in left.changed and name in right.changed:
            conflicts.append(name)
        match _winner(name, left, right, rule):
            case "left":
                right_values[name] = left_values[name]
            case "right":
                left_values[name] = right_values[name]
    return Decision(_update(left, left_values), _update(right, right_values), tuple(conflicts))


def _one_is_missing(
    there: Seen, missing: Seen, side: Side, rule: ConflictRule
) -> tuple[Write, Write]:
    """What to do to the side that is there, and to the one that is missing."""
    assert there.snapshot is not None  # noqa: S101 - the caller has looked
    values = there.snapshot.values
    counting = {name for name in there.changed if rule.owners.get(name) != side}
    if missing.was_there and (rule.deletion == "wins" or not counting):
        return Write("delete"), Write()
    creating = {name: value for name, value in values.items() if value is not None}
    return _update(there, values), Write("create", creating)


def _winner(name: str, left: Seen, right: Seen, rule: ConflictRule) -> Side | None:
    """Whose value of a field counts; None if each may keep its own form of the same value."""
    assert left.snapshot is not None and right.snapshot is not None  # noqa: S101, PT018
    if not (left.was_there and right.was_there):
        # they meet for the first time: what one side does not know, it does not deny
        if left.snapshot.values[name] is None and name not in right.unsettled:
            return "right"
        if right.snapshot.values[name] is None and name not in left.unsettled:
            return "left"
    owner = rule.owners.get(name)
    if owner is not None:
        return owner
    for news in (
        (name in left.changed, name in right.changed),
        (name not in left.unsettled, name not in right.unsettled),
    ):
        if news == (True, False):
            return "left"
        if news == (False, True):
            return "right"
    if name not in left.changed and name not in left.unsettled:
        return None
    left_at, right_at = _instant(left.snapshot, name), _instant(right.snapshot, name)
    if left_at == right_at:
        return rule.at_same_time
    return "left" if left_at > right_at else "right"


def _update(seen: Seen, values: Mapping[str, Value]) -> Write:
    stored = seen.stored or {}
    differing = {name: value for name, value in values.items() if stored.get(name) != value}
    return Write("update", differing) if differing else Write()


def _instant(snapshot: Snapshot, name: str) -> datetime:
    return snapshot.changed_at[name]


def changed_at_of(names: Iterable[str], at: datetime) -> dict[str, datetime]:
    """The same instant for all fields, for a side that tells when a record changed, no more."""
    return dict.fromkeys(names, at)
