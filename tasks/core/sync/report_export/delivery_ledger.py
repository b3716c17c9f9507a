"""Each report goes to each destination once a period, however often runs fail and are repeated.

    leased ── it arrived ──► delivered ── replace, by another run ──► leased (next revision)
       └────── it failed ───► released ─── next attempt ─────────────► leased

Only one run at a time holds a delivery, by a lease with a fencing token. What went out and could
not be recorded, because the run died in between, makes the next lease *uncertain*: destinations
that can be looked into are looked into, and e-mail repeats its Message-ID.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Engine, Row, select

from tasks.core.state.database import reading, writing
from tasks.core.state.leases import Leases, utc_now
from tasks.core.sync.report_export.tables import REPORT_DELIVERIES


class Receipt(NamedTuple):
    """What arrived.

    Attributes:
        name: Of the file, or of what stands for it, such as a message id.
        size: Bytes.
        sha256: Of the content, in hexadecimal.
        link: Where people find it, if anywhere.
    """

    name: str
    size: int
    sha256: str
    link: str | None


@dataclass(frozen=True, slots=True)
class DeliveryLease:
    """The right to deliver until the lease runs out.

    Attributes:
        identity: Of report, period and destination.
        destination: As people call it.
        revision: 1, and one more each time a delivered report is replaced.
        attempt: Of this revision, from 1.
        token: Fencing token; a later lease has a greater one.
        uncertain: An earlier attempt at this revision may have arrived.
        previous: What was delivered as the revision before.
    """

    identity: str
    destination: str
    revision: int
    attempt: int
    token: int
    uncertain: bool
    previous: Receipt | None

    @property
    def key(self) -> str:
        """The same for every attempt at this revision, and for nothing else."""
        return f"{self.identity[:32]}-{self.revision}"


@dataclass(frozen=True, slots=True)
class AlreadyDelivered:
    """The report is there already.

    Attributes:
        receipt: What arrived.
        revision: Which one.
        at: When.
    """

    receipt: Receipt
    revision: int
    at: datetime


@dataclass(frozen=True, slots=True)
class DeliveryBusy:
    """Another run is delivering it just now.

    Attributes:
        until_at: When its lease runs out, unless it is extended.
    """

    until_at: datetime


class DeliveryLedger:
    """The record as one run sees it.

    Args:
        engine: The state database.
        owner: The run; a retried run has the same owner and takes its own leases up again.
        lease_s: How long a lease lasts; longer than the slowest upload.
        clock: Gives aware UTC instants.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        owner: str,
        lease_s: float = 3600,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._engine = engine
        self._owner = owner
        self._clock = clock
        self._leases = Leases(
            key=REPORT_DELIVERIES.c.identity,
            lease_s=lease_s,
            clock=clock,
            system="report deliveries",
            operation="record",
            lost="the lease ran out and another run took the delivery over; that run goes on",
        )

    def lease(
        self, report: str, period: str, destination: str, *, replace: bool = False
    ) -> DeliveryLease | AlreadyDelivered | DeliveryBusy:
        """Take a delivery, or learn that there is nothing to do.

        Args:
            report: The report's name.
            period: The period's key.
            destination: As people call it; another name is another destination.
            replace: Deliver again what another run has delivered; what this run itself has
                delivered stays, so that a retry goes on where it stopped.
        """
        identity = _identity(report, period, destination)
        now = self._clock()
        with writing(self._engine) as connection:
            row = self._leases.find_or_insert(
                connection,
                {
                    "identity": identity,
                    "report": report,
                    "period": period,
                    "destination": destination,
                    "state": "released",
                    "revision": 1,
                    "owner": self._owner,
                    "attempts": 0,
                    "uncertain": False,
                    "first_tried_at": now,
                    "updated_at": now,
                },
            )
            if row.state == "delivered" and not (replace and row.owner != self._owner):
                return AlreadyDelivered(_receipt(row), row.revision, row.updated_at)
            replacing = row.state == "delivered"
            leased = self._leases.acquire(
                connection,
                row,
                owner=self._owner,
                is_free=row.state != "leased",
                state="leased",
                revision=row.revision + 1 if replacing else row.revision,
                attempts=1 if replacing else row.attempts + 1,
                # whoever stops in an orderly way leaves another state behind
                uncertain=not replacing
                and (row.uncertain or (row.state == "leased" and row.attempts > 0)),
                updated_at=now,
            )
        return DeliveryBusy(row.lease_until_at) if leased is None else _lease(leased)

    def settle(self, lease: DeliveryLease, receipt: Receipt) -> None:
        """It arrived.

        Raises:
            LeaseLostError: Another run took the delivery over.
        """
        self._update(lease, state="delivered", uncertain=False, reason=None, **receipt._asdict())

    def release(self, lease: DeliveryLease, *, reason: str, uncertain: bool = False) -> None:
        """It failed: give it back for the next attempt.

        Args:
            lease: What is given back.
            reason: What people should know.
            uncertain: It may have arrived all the same.

        Raises:
            LeaseLostError: Another run took the delivery over.
        """
        self._update(lease, state="released", reason=reason, uncertain=lease.uncertain or uncertain)

    def delivered(self, report: str, period: str) -> dict[str, Receipt]:
        """What arrived of one report and period, by destination."""
        query = select(REPORT_DELIVERIES).where(
            REPORT_DELIVERIES.c.report == report,
            REPORT_DELIVERIES.c.period == period,
            REPORT_DELIVERIES.c.state == "delivered",
        )
        with reading(self._engine) as connection:
            return {row.destination: _receipt(row) for row in connection.execute(query)}

    def _update(self, lease: DeliveryLease, **values: Any) -> None:
        values["updated_at"] = self._clock()
        with writing(self._engine) as connection:
            self._leases.renew(
                connection, lease.identity, lease.token, record=lease.destination, **values
            )


def _identity(report: str, period: str, destination: str) -> str:
    return hashlib.sha256(f"{report}\0{period}\0{destination}".encode()).hexdigest()


def _lease(row: Row[Any]) -> DeliveryLease:
    return DeliveryLease(
        identity=row.identity,
        destination=row.destination,
        revision=row.revision,
        attempt=row.attempts,
        token=row.token,
        uncertain=row.uncertain,
        previous=_receipt(row) if row.revision > 1 else None,
    )


def _receipt(row: Row[Any]) -> Receipt:
    return Receipt(row.name, row.size, row.sha256, row.link)
