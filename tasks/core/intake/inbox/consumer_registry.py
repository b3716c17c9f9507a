"""Keeps account of the consumer runs at work, so that there are neither none nor too many.

A run that finds the inbox empty must first `leave` and then look once more: a gateway that
stored a delivery and saw the run still at work did not notify.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, delete, func, insert, select, update

from tasks.core.intake.inbox.ordering import take_turns
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.storage_errors import storage_errors
from tasks.core.intake.inbox.tables import CONSUMERS, DELIVERIES
from tasks.core.state.database import reading, writing
from tasks.core.state.leases import utc_now


@dataclass(frozen=True, slots=True)
class WaitingDeliveries:
    """What waits for one integration, and who works on it.

    Attributes:
        integration: Whose deliveries.
        due: How many may be leased now.
        oldest_due_at: Since when the first of them is due; aware UTC instant.
        consumers: Runs at work.
    """

    integration: str
    due: int
    oldest_due_at: datetime
    consumers: int


class ConsumerRegistry:
    """The register of consumer runs; a run that died falls out when its lease ends."""

    def __init__(self, engine: Engine, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def enter(self, integration: str, owner: LeaseOwner, *, max_runs: int) -> bool:
        """Register a run.

        Returns:
            False if enough are at work already: the run should end at once.
        """
        now = self._clock()
        with storage_errors("enter"), writing(self._engine) as connection:
            take_turns(connection, [integration])
            connection.execute(
                delete(CONSUMERS).where(
                    (CONSUMERS.c.lease_until_at <= now) | (CONSUMERS.c.run_id == owner.run_id)
                )
            )
            at_work = connection.execute(
                select(func.count()).where(CONSUMERS.c.integration == integration)
            ).scalar_one()
            if at_work >= max_runs:
                return False
            connection.execute(
                insert(CONSUMERS).values(
                    run_id=owner.run_id,
                    integration=integration,
                    lease_until_at=now + timedelta(seconds=owner.lease_s),
                )
            )
            return True

    def renew(self, owner: LeaseOwner) -> None:
        """Stay registered for another lease."""
        until_at = self._clock() + timedelta(seconds=owner.lease_s)
        with storage_errors("renew"), writing(self._engine) as connection:
            connection.execute(
                update(CONSUMERS)
                .where(CONSUMERS.c.run_id == owner.run_id)
                .values(lease_until_at=until_at)
            )

    def leave(self, owner: LeaseOwner) -> None:
        """Say that this run takes nothing more; it must look for due deliveries afterwards."""
        with storage_errors("leave"), writing(self._engine) as connection:
            connection.execute(delete(CONSUMERS).where(CONSUMERS.c.run_id == owner.run_id))

    def at_work(self, integration: str) -> int:
        """How many runs take this integration's deliveries; if none, Prefect is to be notified."""
        with storage_errors("look"), reading(self._engine) as connection:
            return connection.execute(
                select(func.count()).where(
                    CONSUMERS.c.integration == integration,
                    CONSUMERS.c.lease_until_at > self._clock(),
                )
            ).scalar_one()

    def is_spare(self, integration: str, owner: LeaseOwner) -> bool:
        """Whether another run may be left alone to wait for what comes: all but one are spare."""
        with storage_errors("look"), reading(self._engine) as connection:
            first = connection.execute(
                select(func.min(CONSUMERS.c.run_id)).where(
                    CONSUMERS.c.integration == integration,
                    CONSUMERS.c.lease_until_at > self._clock(),
                )
            ).scalar_one()
        return first is not None and first != owner.run_id

    def waiting(self) -> list[WaitingDeliveries]:
        """Every integration that has due deliveries, by name."""
        now = self._clock()
        with storage_errors("look"), reading(self._engine) as connection:
            found = connection.execute(
                select(DELIVERIES.c.integration, func.count(), func.min(DELIVERIES.c.due_at))
                .where(DELIVERIES.c.due_at <= now)
                .group_by(DELIVERIES.c.integration)
                .order_by(DELIVERIES.c.integration)
            ).all()
        return [
            WaitingDeliveries(name, due, oldest, self.at_work(name)) for name, due, oldest in found
        ]
