"""Which record of the left system is which record of the right one, however ids change.

    identities = IdentityMap(open_database(), "support_tickets")
    with identities.lease(right="T-7") as pair:      # made, if T-7 is not known yet
        if pair.left is None:
            pair.store(left=create_there(marker=pair.id))
        pair.store(state={"digest": digest_of(record)})

A pair is held by one process at a time, so nothing is created twice; its id is a good marker to
create a record with, by which a later attempt finds it again. The sides are "left" and "right",
and it is the integration that says who is who. A record whose id changes, because it was merged
into another or made anew, is found by each id that it ever had. A pair whose records were deleted
stays as a tombstone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine

from tasks.core.state.database import reading, writing
from tasks.core.state.leases import utc_now
from tasks.core.sync.two_way.identity_map.rows import Pair, PairRows
from tasks.core.sync.two_way.identity_map.sides import Side


class IdentityMap:
    """The pairs of one kind of record.

    Args:
        engine: The state database.
        kind: Names the pairs that belong together, e.g. "crm_contacts"; up to 100 characters.
        lease_s: How long a pair is held at most; longer than it takes to bring it in step. If
            the process dies, others wait so long.
        clock: Gives aware UTC instants.
    """

    def __init__(
        self,
        engine: Engine,
        kind: str,
        *,
        lease_s: float = 60,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._engine = engine
        self._rows = PairRows(kind, lease_s=lease_s, clock=clock)

    def find(self, side: Side, record_id: str) -> Pair | None:
        """The pair of a record, by any id it ever had, without holding it."""
        return self.find_all(side, [record_id]).get(record_id)

    def get(self, pair_id: str) -> Pair | None:
        """A pair by its own id, without holding it; None if there is no such pair."""
        with reading(self._engine) as connection:
            return self._rows.get(connection, pair_id)

    def find_all(self, side: Side, record_ids: Sequence[str]) -> dict[str, Pair]:
        """As `find`, for many at once; those that have no pair are left out.

        Args:
            side: Whose ids they are.
            record_ids: At most some thousands.
        """
        with reading(self._engine) as connection:
            return self._rows.find(connection, side, record_ids)

    def page(self, *, after: str = "", limit: int = 500) -> list[Pair]:
        """Pairs that are no tombstones, in the order of their ids.

        Args:
            after: The id of the last pair seen.
            limit: At most so many.
        """
        with reading(self._engine) as connection:
            return self._rows.page(connection, after, limit)

    @contextmanager
    def lease(self, *, left: str | None = None, right: str | None = None) -> Iterator[LeasedPair]:
        """Hold the pair of a record until the block ends; a new one if it has none yet.

        A new pair of which nothing was kept when the block ends is forgotten.

        Args:
            left: An id that the left record has or had; or
            right: one of the right record.

        Raises:
            PairBusyError: Another process, or another thread of this one, holds it.
        """
        if (left is None) == (right is None):
            raise ValueError("name the record of one side")
        side: Side = "left" if left is not None else "right"
        with writing(self._engine) as connection:
            pair, token = self._rows.take(
                connection, side, str(left if left is not None else right)
            )
        with self._releasing(LeasedPair(self._engine, self._rows, pair, token)) as leased:
            yield leased

    @contextmanager
    def lease_pair(self, pair_id: str) -> Iterator[LeasedPair | None]:
        """As `lease`, by the pair's own id; None if there is no such pair."""
        with writing(self._engine) as connection:
            taken = self._rows.take_pair(connection, pair_id)
        if taken is None:
            yield None
            return
        with self._releasing(LeasedPair(self._engine, self._rows, *taken)) as leased:
            yield leased

    @contextmanager
    def _releasing(self, leased: LeasedPair) -> Iterator[LeasedPair]:
        try:
            yield leased
        finally:
            with writing(self._engine) as connection:
                self._rows.release(connection, leased.id, leased.token)


class LeasedPair:
    """A pair that is ours until the block of `IdentityMap.lease` ends.

    Every change raises LeaseLostError if the lease ran out and another process took the pair; it
    extends the lease.

    Attributes:
        pair: As it is kept.
        token: Proves the hold.
    """

    def __init__(self, engine: Engine, rows: PairRows, pair: Pair, token: int) -> None:
        self._engine = engine
        self._rows = rows
        self.pair = pair
        self.token = token

    @property
    def id(self) -> str:
        """The pair's own id."""
        return self.pair.id

    @property
    def left(self) -> str | None:
        """Id of the left record."""
        return self.pair.left

    @property
    def right(self) -> str | None:
        """Id of the right record."""
        return self.pair.right

    @property
    def state(self) -> dict[str, Any]:
        """What the integration keeps with it."""
        return self.pair.state

    def store(
        self,
        *,
        left: str | None = None,
        right: str | None = None,
        state: dict[str, Any] | None = None,
        is_deleted: bool | None = None,
    ) -> None:
        """Keep what is given, all at once; the rest stays as it is.

        Args:
            left: The id that the left record has from now on; the one before becomes a former one.
            right: The same for the right record.
            state: What JSON can say.
            is_deleted: Whether the pair is a tombstone.

        Raises:
            PairedOtherwiseError: An id is part of another pair; nothing was kept.
        """
        with self._changing() as connection:
            self._keep(connection, left, right, state, is_deleted)

    def drop_id(self, side: Side) -> None:
        """The record of this side is no more, and another may take its place."""
        with self._changing() as connection:
            self._rows.make_former(connection, self.id, side)

    def forget_former(self, side: Side, record_id: str) -> None:
        """An id that the record had once was given to another record: that may have a pair, too."""
        with self._changing() as connection:
            self._rows.delete_former(connection, self.id, side, record_id)

    def absorb(
        self,
        other: LeasedPair,
        *,
        left: str | None = None,
        right: str | None = None,
        state: dict[str, Any] | None = None,
        is_deleted: bool | None = None,
    ) -> None:
        """The records of another pair have become those of this one: take over its ids.

        The other pair is no more. Where this pair has an id on a side, that stays the current one
        unless another is given.

        Args:
            other: Held, too; its state is lost.
            left: As in `store`, like the rest.
            right: As in `store`.
            state: As in `store`.
            is_deleted: As in `store`.
        """
        with self._changing() as connection:
            self._rows.renew(connection, other.id, other.token)
            self._rows.absorb(connection, self.pair, other.pair)
            self._keep(connection, left, right, state, is_deleted)

    def _keep(
        self,
        connection: Connection,
        left: str | None,
        right: str | None,
        state: dict[str, Any] | None,
        is_deleted: bool | None,
    ) -> None:
        if left is not None and left != self.left:
            self._rows.set_id(connection, self.id, "left", left)
        if right is not None and right != self.right:
            self._rows.set_id(connection, self.id, "right", right)
        self._rows.update(connection, self.id, state=state, is_deleted=is_deleted)

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        with writing(self._engine) as connection:
            self._rows.renew(connection, self.id, self.token)
            yield connection
            self._rows.update(connection, self.id)
            self.pair = self._rows.read(connection, [self.id])[0]
