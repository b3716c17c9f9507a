"""Reads and writes the rows of pairs and ids, each call within a transaction of its caller."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, select, update

from blocks.errors import TransientError, UpstreamBusyError
from tasks.core.state.database import insert_or_ignore
from tasks.core.state.leases import Leases
from tasks.core.sync.two_way.identity_map.sides import SIDES, Side
from tasks.core.sync.two_way.identity_map.tables import IDS, PAIRS

_SYSTEM = "identity map"


class PairedOtherwiseError(TransientError):
    """The record is part of another pair by now: look again."""


class PairBusyError(UpstreamBusyError):
    """Another run holds the pair just now."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two records that are one thing.

    Attributes:
        id: 32 hexadecimal characters, for good.
        left: Id of the left record; None as long as there is none.
        right: Id of the right record.
        state: What the integration keeps with it, e.g. digests of what was last in step.
        deleted_at: Since when the pair is a tombstone, an aware UTC instant.
        is_new: Nothing was kept of it yet.
    """

    id: str
    left: str | None
    right: str | None
    state: dict[str, Any]
    deleted_at: datetime | None
    is_new: bool = False

    def id_of(self, side: Side) -> str | None:
        """The id of one side's record."""
        return self.left if side == "left" else self.right


class PairRows:
    """The rows of one kind.

    Args:
        kind: As in `IdentityMap`.
        lease_s: How long a pair is leased.
        clock: Gives aware UTC instants.
    """

    def __init__(self, kind: str, *, lease_s: float, clock: Callable[[], datetime]) -> None:
        self._kind = kind
        self._clock = clock
        self._leases = Leases(
            key=PAIRS.c.id,
            lease_s=lease_s,
            clock=clock,
            system=_SYSTEM,
            operation="keep pair",
            lost="the lease ran out and another run took the pair; that run goes on",
        )

    def find(
        self, connection: Connection, side: Side, record_ids: Collection[str]
    ) -> dict[str, Pair]:
        """Record id to pair, for those that have one."""
        query = select(IDS.c.record_id, IDS.c.pair_id).where(
            IDS.c.kind == self._kind, IDS.c.side == side, IDS.c.record_id.in_(record_ids)
        )
        pair_ids = {row.record_id: row.pair_id for row in connection.execute(query)}
        pairs = {pair.id: pair for pair in self.read(connection, set(pair_ids.values()))}
        return {
            record_id: pairs[pair_id] for record_id, pair_id in pair_ids.items() if pair_id in pairs
        }

    def get(self, connection: Connection, pair_id: str) -> Pair | None:
        """The pair of this kind with this id."""
        query = select(PAIRS.c.id).where(PAIRS.c.id == pair_id, PAIRS.c.kind == self._kind)
        if connection.execute(query).first() is None:
            return None
        return next(iter(self.read(connection, [pair_id])), None)

    def page(self, connection: Connection, after: str, limit: int) -> list[Pair]:
        """Pairs that are no tombstones, after the one with this id."""
        query = (
            select(PAIRS.c.id)
            .where(PAIRS.c.kind == self._kind, PAIRS.c.id > after, PAIRS.c.deleted_at.is_(None))
            .order_by(PAIRS.c.id)
            .limit(limit)
        )
        return self.read(connection, connection.execute(query).scalars().all())

    def read(self, connection: Connection, pair_ids: Collection[str]) -> list[Pair]:
        """The pairs with these ids, in the order of their ids."""
        current = select(IDS).where(IDS.c.pair_id.in_(pair_ids), IDS.c.is_former.is_(False))
        ids = {(row.pair_id, row.side): row.record_id for row in connection.execute(current)}
        query = select(PAIRS).where(PAIRS.c.id.in_(pair_ids)).order_by(PAIRS.c.id)
        return [
            Pair(
                row.id,
                ids.get((row.id, "left")),
                ids.get((row.id, "right")),
                json.loads(row.state),
                row.deleted_at,
                row.updated_at is None,
            )
            for row in connection.execute(query)
        ]

    def take(self, connection: Connection, side: Side, record_id: str) -> tuple[Pair, int]:
        """Hold the pair of a record, made if there is none.

        Returns:
            The pair, and the token that proves the hold.
        """
        while True:
            pair_id = self._pair_id(connection, side, record_id)
            taken = (
                self._make(connection, side, record_id)
                if pair_id is None
                else self.take_pair(connection, pair_id)
            )
            if taken is not None:
                return taken
            # another process made it, or let it be absorbed, just now

    def take_pair(self, connection: Connection, pair_id: str) -> tuple[Pair, int] | None:
        """Hold a pair; None if there is no such pair."""
        row = self._leases.find(connection, PAIRS.c.id == pair_id, PAIRS.c.kind == self._kind)
        if row is None:
            return None
        leased = self._leases.acquire(connection, row)
        if leased is None:
            raise PairBusyError(
                "another run is at this pair of records just now; it is tried again",
                system=_SYSTEM,
                operation="hold pair",
                record=pair_id,
            )
        return self.read(connection, [pair_id])[0], leased.token

    def release(self, connection: Connection, pair_id: str, token: int) -> None:
        """End the hold; forget the pair if nothing was ever kept of it."""
        if self._leases.release(connection, pair_id, token):
            new = (PAIRS.c.id == pair_id) & PAIRS.c.updated_at.is_(None)
            connection.execute(delete(PAIRS).where(new))

    def renew(self, connection: Connection, pair_id: str, token: int) -> None:
        """Extend the lease, and keep others from the pair for the rest of the transaction.

        Raises:
            LeaseLostError: Another process took it.
        """
        self._leases.renew(connection, pair_id, token)

    def update(
        self,
        connection: Connection,
        pair_id: str,
        *,
        state: dict[str, Any] | None = None,
        is_deleted: bool | None = None,
    ) -> None:
        """Keep what is given, as its holder."""
        now = self._clock()
        values: dict[str, Any] = {"updated_at": now}
        if state is not None:
            values["state"] = json.dumps(state, sort_keys=True)
        if is_deleted is not None:
            values["deleted_at"] = now if is_deleted else None
        connection.execute(update(PAIRS).where(PAIRS.c.id == pair_id).values(values))

    def set_id(self, connection: Connection, pair_id: str, side: Side, record_id: str) -> None:
        """Let a side's record have this id from now on.

        Raises:
            PairedOtherwiseError: It is part of another pair.
        """
        self.make_former(connection, pair_id, side)
        if self._insert_id(connection, side, record_id, pair_id):
            return
        if self._pair_id(connection, side, record_id) != pair_id:
            raise PairedOtherwiseError(
                f"the {side} record is part of another pair by now; it is looked at again",
                system=_SYSTEM,
                operation="pair records",
                record=record_id,
            )
        this = (IDS.c.pair_id == pair_id) & (IDS.c.side == side) & (IDS.c.record_id == record_id)
        connection.execute(update(IDS).where(this).values(is_former=False))

    def make_former(self, connection: Connection, pair_id: str, side: Side) -> None:
        """Let the pair have no current id on a side."""
        its = (IDS.c.pair_id == pair_id) & (IDS.c.side == side)
        connection.execute(update(IDS).where(its).values(is_former=True))

    def delete_former(
        self, connection: Connection, pair_id: str, side: Side, record_id: str
    ) -> None:
        """Let nothing lead from a former id to the pair."""
        its = (IDS.c.pair_id == pair_id) & (IDS.c.side == side) & IDS.c.is_former
        connection.execute(delete(IDS).where(its, IDS.c.record_id == record_id))

    def absorb(self, connection: Connection, pair: Pair, other: Pair) -> None:
        """Move the ids of another pair, and forget it."""
        for side in SIDES:
            if pair.id_of(side) is not None:
                self.make_former(connection, other.id, side)
        connection.execute(update(IDS).where(IDS.c.pair_id == other.id).values(pair_id=pair.id))
        connection.execute(delete(PAIRS).where(PAIRS.c.id == other.id))

    def _make(self, connection: Connection, side: Side, record_id: str) -> tuple[Pair, int] | None:
        """A new pair of one record; None if another process was first."""
        pair_id, now = uuid.uuid4().hex, self._clock()
        values = {
            "id": pair_id,
            "kind": self._kind,
            "state": "{}",
            "created_at": now,
        } | self._leases.columns(None)
        connection.execute(PAIRS.insert().values(values))
        if not self._insert_id(connection, side, record_id, pair_id):
            connection.execute(delete(PAIRS).where(PAIRS.c.id == pair_id))
            return None
        return self.read(connection, [pair_id])[0], 1

    def _pair_id(self, connection: Connection, side: Side, record_id: str) -> str | None:
        query = select(IDS.c.pair_id).where(
            IDS.c.kind == self._kind, IDS.c.side == side, IDS.c.record_id == record_id
        )
        found: str | None = connection.execute(query).scalar()
        return found

    def _insert_id(self, connection: Connection, side: Side, record_id: str, pair_id: str) -> bool:
        values = {
            "kind": self._kind,
            "side": side,
            "record_id": record_id,
            "pair_id": pair_id,
            "is_former": False,
        }
        return insert_or_ignore(connection, IDS, values, key=["kind", "side", "record_id"])
