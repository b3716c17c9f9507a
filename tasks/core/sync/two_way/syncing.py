"""Brings one pair of records in step: read both, decide, write, remember.

What is set out to be written is remembered before it is, so that a process that dies in between
never takes its own writes for changes by people; creations carry the pair's id as marker, or have
an id chosen and remembered before. Writes name the version that was read: what changed meanwhile
is looked at again, never overwritten.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from tasks.core import threads
from tasks.core.sync.two_way.deciding import (
    Decision,
    Known,
    Seen,
    Snapshot,
    Write,
    decide,
    in_step,
    join,
    look,
)
from tasks.core.sync.two_way.identity_map.pairs import IdentityMap, LeasedPair
from tasks.core.sync.two_way.identity_map.rows import Pair, PairBusyError, PairedOtherwiseError
from tasks.core.sync.two_way.identity_map.sides import SIDES, Side, other_side
from tasks.core.sync.two_way.memory import remembered, to_remember
from tasks.core.sync.two_way.records import ChangedMeanwhileError, FoundRecord, Records
from tasks.core.sync.two_way.rule import ConflictRule

_ROUNDS = 5
_BUSY_ROUNDS = 20
_BUSY_WAIT_S = 0.5


@dataclass(frozen=True, slots=True)
class Synced:
    """What was done to bring a pair in step.

    Attributes:
        done: For people, e.g. ("CRM updated (phone)",); empty if both were in step.
        conflicts: Fields that had been changed on both sides.
    """

    done: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


@dataclass(slots=True)
class _OneSide:
    """One side of the pair that is being brought in step.

    Attributes:
        found: The record; None if there is none.
        owner: The pair that remembers what is known of it.
        known: What is.
        seen: What is news.
        merged: Another record that shall be merged into it, and deleted.
    """

    found: FoundRecord | None
    owner: LeasedPair
    known: Known
    seen: Seen
    merged: FoundRecord | None = None


@dataclass(slots=True)
class _Work:
    """What is held and was read.

    Attributes:
        pair: The pair that will stay.
        sides: Both sides.
        absorbed: A pair that will become part of it.
    """

    pair: LeasedPair
    sides: dict[Side, _OneSide]
    absorbed: LeasedPair | None = None
    done: list[str] = field(default_factory=list)


class _MergedFurtherError(PairedOtherwiseError):
    """A third pair is concerned: this record has to be brought in step first."""

    def __init__(self, side: Side, merged_id: str) -> None:
        super().__init__(
            "it was merged into a record of a third pair; that goes first",
            system="identity map",
            operation="merge records",
            record=merged_id,
        )
        self.side = side
        self.merged_id = merged_id


class TwoWaySync:
    """Keeps the records of two sides in step.

    Args:
        identities: Which record is which.
        left: The left side.
        right: The right side.
        rule: What prevails.
        sleep: Waits so many seconds, while another run is at the pair.
    """

    def __init__(
        self,
        identities: IdentityMap,
        left: Records,
        right: Records,
        rule: ConflictRule,
        *,
        sleep: Callable[[float], None] = threads.sleep,
    ) -> None:
        self._sleep = sleep
        self._identities = identities
        self._records: dict[Side, Records] = {"left": left, "right": right}
        self._rule = rule

    def sync(self, side: Side, record_id: str, *, follows_deletions: bool = True) -> Synced:
        """Bring a record and its counterpart in step, whatever happened to either.

        Args:
            side: Whose id it is.
            record_id: An id that the record has or had.
            follows_deletions: Whether a record is deleted whose counterpart is gone; else such a
                pair is left as it is.

        Raises:
            ChangedMeanwhileError: It is being changed all the time.
            PairBusyError: Another run is at it for long.
            IntegrationError: As calls to either side raise it.
        """
        return self._sync(side, record_id, _ROUNDS, follows_deletions)

    def _sync(self, side: Side, record_id: str, rounds: int, follows_deletions: bool) -> Synced:
        busy = 0
        while True:
            try:
                return self._sync_once(side, record_id, follows_deletions)
            except PairBusyError:
                busy += 1
                if busy == _BUSY_ROUNDS:
                    raise
                self._sleep(_BUSY_WAIT_S * random.random())
            except (ChangedMeanwhileError, PairedOtherwiseError) as error:
                rounds -= 1
                if rounds == 0:
                    raise
                if isinstance(error, _MergedFurtherError):
                    self._sync(error.side, error.merged_id, rounds, follows_deletions)

    def is_in_step(self, side: Side, record_id: str, snapshot: Snapshot) -> bool:
        """Whether this is how the record was when both sides were last in step.

        Then there is nothing to do: it is an echo of our own write, or nothing new.
        """
        return not self.find_differing(side, {record_id: snapshot})

    def find_differing(self, side: Side, snapshots: Mapping[str, Snapshot]) -> list[str]:
        """The ids of the records that are not as they were when both sides were last in step.

        Args:
            side: Whose records they are.
            snapshots: Id to record, at most some thousands.
        """
        pairs = self._identities.find_all(side, list(snapshots))
        return [
            record_id
            for record_id, snapshot in snapshots.items()
            if not _is_as_remembered(pairs.get(record_id), side, record_id, snapshot)
        ]

    def find_unseen(
        self, seen: Mapping[Side, Collection[str]], *, after: str = "", limit: int = 500
    ) -> tuple[list[tuple[Side, str]], str | None]:
        """Records that are paired, and were not seen when all records of their side were listed.

        Args:
            seen: Side to the ids of all its records.
            after: Where the page of pairs before ended.
            limit: Pairs to look at.

        Returns:
            Side and id of one record a pair, and where the next page starts; None if this was
            the last.
        """
        pairs = self._identities.page(after=after, limit=limit)
        unseen = [
            (side, record_id)
            for pair in pairs
            for side, record_id in [_unseen_of(pair, seen)]
            if record_id is not None
        ]
        return unseen, pairs[-1].id if len(pairs) == limit else None

    def _sync_once(self, side: Side, record_id: str, follows_deletions: bool) -> Synced:
        with ExitStack() as leasing:
            pair = leasing.enter_context(self._hold(side, record_id))
            work = self._read(pair, leasing)
            seen = {each: work.sides[each].seen for each in SIDES}
            decision = decide(seen["left"], seen["right"], self._rule)
            deletes = "delete" in (decision.left.action, decision.right.action)
            if deletes and not follows_deletions:
                return Synced()
            self._carry_out(work, decision)
            return Synced(tuple(work.done), decision.conflicts)

    @contextmanager
    def _hold(self, side: Side, record_id: str) -> Iterator[LeasedPair]:
        """The pair of a record, also if its creation was not seen through."""
        known = self._identities.find(side, record_id)
        if known is not None and known.id_of(side) not in (None, record_id):
            self._separate(known, side, record_id)
        if known is None:
            found = self._records[side].read(record_id)
            if found is not None and found.marker is not None:
                with self._identities.lease_pair(found.marker) as pair:
                    if pair is not None and pair.pair.id_of(side) is None:
                        _keep_id(pair, side, found.id)
                        yield pair
                        return
        if side == "left":
            with self._identities.lease(left=record_id) as pair:
                yield pair
        else:
            with self._identities.lease(right=record_id) as pair:
                yield pair

    def _separate(self, known: Pair, side: Side, record_id: str) -> None:
        """Let an id go to a new record, if one has it that was long merged or deleted."""
        found = self._records[side].read(record_id)
        if found is not None and found.id == record_id:
            with self._identities.lease_pair(known.id) as pair:
                if pair is not None and pair.pair.id_of(side) != record_id:
                    pair.forget_former(side, record_id)

    def _read(self, pair: LeasedPair, leasing: ExitStack) -> _Work:
        found = {side: self._find(pair, side) for side in SIDES}
        for side in SIDES:
            record = found[side]
            if record is None or record.id == pair.pair.id_of(side):
                continue
            other = self._identities.find(side, record.id)
            if other is None or other.id == pair.id:
                _keep_id(pair, side, record.id)
                continue
            survivor = leasing.enter_context(self._identities.lease_pair(other.id))
            if survivor is None:
                raise _look_again("pair records", record.id)
            return self._read_merged(survivor, pair, found)
        if pair.pair.deleted_at is not None:
            self._revive(pair, found)
        self._meet(pair, found, leasing)
        known = remembered(pair.state)
        return _Work(
            pair,
            {side: _one_side(found[side], pair, known[side]) for side in SIDES},
        )

    def _find(self, pair: LeasedPair, side: Side) -> FoundRecord | None:
        record_id = pair.pair.id_of(side)
        if record_id is not None:
            return self._records[side].read(record_id)
        made = self._records[side].find_made_for(pair.id)
        if made is not None:
            taken = self._identities.find(side, made.id)
            # people may have merged another record into it before we knew of it
            if taken is None or taken.id == pair.id:
                _keep_id(pair, side, made.id)
        return made

    def _meet(
        self, pair: LeasedPair, found: dict[Side, FoundRecord | None], leasing: ExitStack
    ) -> None:
        """Find the counterpart of a record that has none yet, among those that have none either."""
        for side, other in (SIDES, SIDES[::-1]):
            record = found[other]
            if record is None or pair.pair.id_of(side) is not None:
                continue
            for candidate in self._records[side].find_like(record):
                taken = self._identities.find(side, candidate.id)
                if taken is not None and taken.deleted_at is None and taken.id_of(other):
                    continue
                if taken is None and self._is_made_for_another(candidate, pair, side):
                    continue
                if taken is not None:
                    half = leasing.enter_context(self._identities.lease_pair(taken.id))
                    if half is None:
                        raise _look_again("pair records", candidate.id)
                    pair.absorb(half)
                _keep_id(pair, side, candidate.id)
                found[side] = candidate
                return

    def _is_made_for_another(self, record: FoundRecord, pair: LeasedPair, side: Side) -> bool:
        """Whether it was created for another pair, which does not know of it yet."""
        if record.marker is None or record.marker == pair.id:
            return False
        maker = self._identities.get(record.marker)
        return maker is not None and maker.deleted_at is None and maker.id_of(side) is None

    def _revive(self, pair: LeasedPair, found: Mapping[Side, FoundRecord | None]) -> None:
        """A record that was deleted is there again, as a new one."""
        if not any(found.values()):
            return
        pair.store(state={}, is_deleted=False)
        for side in SIDES:
            if found[side] is None:
                pair.drop_id(side)

    def _read_merged(
        self, survivor: LeasedPair, absorbed: LeasedPair, found: Mapping[Side, FoundRecord | None]
    ) -> _Work:
        """Two pairs whose records were merged on one side or on both."""
        sides: dict[Side, _OneSide] = {}
        for side in SIDES:
            # the pair whose record it is knows it; the other one may have had another record
            of_survivor, of_absorbed = self._find(survivor, side), found[side]
            self._leave_a_third_alone(side, (survivor, of_survivor), (absorbed, of_absorbed))
            own = _one_side(of_survivor, survivor, remembered(survivor.state)[side])
            others = _one_side(of_absorbed, absorbed, remembered(absorbed.state)[side])
            if of_survivor is None:
                sides[side] = others if of_absorbed is not None else own
            elif of_absorbed is None or of_absorbed.id == of_survivor.id:
                is_others = absorbed.pair.id_of(side) == of_survivor.id
                sides[side] = others if is_others and of_absorbed is not None else own
            else:
                own.merged, own.seen = of_absorbed, join(own.seen, others.seen)
                sides[side] = own
        if sides["left"].owner is not sides["right"].owner:
            # each side kept another one of the records: they never were in step with each other
            for one in sides.values():
                if one.seen.was_there and one.merged is None:
                    known = Known(sent=one.known.sent)
                    one.seen = look(_snapshot_of(one.found), known, one.owner.id)
        return _Work(survivor, sides, absorbed)

    def _leave_a_third_alone(
        self,
        side: Side,
        survivor: tuple[LeasedPair, FoundRecord | None],
        absorbed: tuple[LeasedPair, FoundRecord | None],
    ) -> None:
        """Two pairs are brought together at a time."""
        pair_ids = (survivor[0].id, absorbed[0].id)
        for pair, record in (survivor, absorbed):
            own_id = pair.pair.id_of(side)
            if record is None or own_id is None or record.id == own_id:
                continue
            third = self._identities.find(side, record.id)
            if third is None or third.id in pair_ids:
                continue
            if pair is survivor[0]:
                raise _MergedFurtherError(side, own_id)
            # people have merged its two records into those of two pairs: nothing of it is left
            survivor[0].absorb(pair)
            raise _look_again("merge records", record.id)

    def _carry_out(self, work: _Work, decision: Decision) -> None:
        writes: dict[Side, Write] = {"left": decision.left, "right": decision.right}
        self._remember_intents(work, writes)
        after: dict[Side, FoundRecord | None] = {}
        for side in sorted(SIDES, key=lambda each: writes[each].action == "delete"):
            after[side] = self._write(work, side, writes[side])
        for side in SIDES:
            merged = work.sides[side].merged
            if merged is not None:
                self._records[side].delete(merged)
                work.done.append(f"{self._records[side].name} merged")
        self._remember(work, after)

    def _remember_intents(self, work: _Work, writes: Mapping[Side, Write]) -> None:
        for side in SIDES:
            write, one = writes[side], work.sides[side]
            if write.action not in ("create", "update"):
                continue
            pair = one.owner
            known = remembered(pair.state)
            base = known[side] if write.action == "update" else Known()
            known[side] = base.sending(write.values, pair.id)
            if write.action == "update":
                pair.store(state=to_remember(known))
                continue
            other = work.sides[other_side(side)].found
            assert other is not None  # noqa: S101 - only what the other side has is created
            record_id = pair.pair.id_of(side)
            chosen = self._records[side].chosen_id(other)
            pair.store(state=to_remember(known))
            if chosen is None and record_id is not None:
                pair.drop_id(side)  # it was deleted; the new one gets another id
            elif chosen is not None and record_id is None:
                _keep_id(pair, side, chosen)

    def _write(self, work: _Work, side: Side, write: Write) -> FoundRecord | None:
        records, one = self._records[side], work.sides[side]
        match write.action:
            case "create":
                work.done.append(f"{records.name} created")
                pair = one.owner
                return records.create(write.values, marker=pair.id, record_id=pair.pair.id_of(side))
            case "update":
                assert one.found is not None  # noqa: S101 - decided from it
                work.done.append(f"{records.name} updated ({', '.join(sorted(write.values))})")
                return records.update(one.found, write.values)
            case "delete":
                assert one.found is not None  # noqa: S101 - decided from it
                work.done.append(f"{records.name} deleted")
                records.delete(one.found)
                return None
            case "leave":
                return one.found

    def _remember(self, work: _Work, after: Mapping[Side, FoundRecord | None]) -> None:
        pair = work.pair
        left, right = after["left"], after["right"]
        is_deleted = left is None and right is None
        if is_deleted and pair.pair.is_new and work.absorbed is None:
            return
        known: dict[Side, Known] = {side: Known() for side in SIDES}
        if left is not None and right is not None:
            known["left"] = in_step(left.snapshot.values, pair.id)
            known["right"] = in_step(right.snapshot.values, pair.id)
        left_id, right_id = _id_of(left) or pair.left, _id_of(right) or pair.right
        state = to_remember(known)
        if work.absorbed is not None:
            pair.absorb(
                work.absorbed, left=left_id, right=right_id, state=state, is_deleted=is_deleted
            )
        elif (pair.left, pair.right, pair.state, pair.pair.deleted_at is not None) != (
            left_id,
            right_id,
            state,
            is_deleted,
        ):
            pair.store(left=left_id, right=right_id, state=state, is_deleted=is_deleted)


def _is_as_remembered(pair: Pair | None, side: Side, record_id: str, snapshot: Snapshot) -> bool:
    if pair is None or pair.deleted_at is not None or pair.left is None or pair.right is None:
        return False
    known = remembered(pair.state)
    if pair.id_of(side) != record_id or any(known[each].sent for each in SIDES):
        return False
    seen = look(snapshot, known[side], pair.id)
    return seen.was_there and not seen.changed


def _unseen_of(pair: Pair, seen: Mapping[Side, Collection[str]]) -> tuple[Side, str | None]:
    for side in SIDES:
        record_id = pair.id_of(side)
        if record_id is not None and record_id not in seen[side]:
            return side, record_id
    return "left", None


def _one_side(found: FoundRecord | None, owner: LeasedPair, known: Known) -> _OneSide:
    seen = look(_snapshot_of(found), known, owner.id)
    return _OneSide(found, owner, known, seen)


def _snapshot_of(found: FoundRecord | None) -> Snapshot | None:
    return None if found is None else found.snapshot


def _id_of(found: FoundRecord | None) -> str | None:
    return None if found is None else found.id


def _keep_id(pair: LeasedPair, side: Side, record_id: str) -> None:
    if side == "left":
        pair.store(left=record_id)
    else:
        pair.store(right=record_id)


def _look_again(operation: str, record_id: str) -> PairedOtherwiseError:
    return PairedOtherwiseError(
        "its pair became part of another just now; it is looked at again",
        system="identity map",
        operation=operation,
        record=record_id,
    )
