"""Records what was registered where, and lets one activation of an integration run at a time.

    intended ── it is there, with this id ──► registered ── removed there ──► forgotten

An intention is recorded before the third party is called: if the process dies in between, the next
one finds the registration by the recorded URLs.
"""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from pydantic import TypeAdapter
from sqlalchemy import Connection, Engine, Row, Update, delete, insert, select, update

from blocks.errors import UpstreamBusyError
from tasks.core.registry.activation.registrar import DesiredRegistration
from tasks.core.registry.activation.tables import ACTIVATIONS, REGISTRATIONS
from tasks.core.registry.registrations import AnyRegistration
from tasks.core.state.database import reading, writing
from tasks.core.state.leases import Leases, utc_now

_DECLARATION: TypeAdapter[AnyRegistration] = TypeAdapter(AnyRegistration)


@dataclass(frozen=True, slots=True)
class RegistrationEntry:
    """A registration that is, or may be, at a third party.

    Attributes:
        id: Our id.
        integration: The integration's name.
        name: As declared.
        place: The third party's collection.
        registration: As declared when it was made.
        shown_url: The URL it should call, with its variables unfilled.
        url_digests: Digests of every URL it may call; the last is the desired one.
        is_intended: Whether it may be there without us knowing its id.
        remote_id: The third party's id, if known.
        secret_digest: Digest of the secret that we made and the third party has.
        problem: What went wrong last, if anything.
        updated_at: When the entry last changed.
    """

    id: str
    integration: str
    name: str
    place: str
    registration: AnyRegistration
    shown_url: str
    url_digests: tuple[str, ...]
    is_intended: bool
    remote_id: str | None
    secret_digest: str | None
    problem: str | None
    updated_at: datetime

    @property
    def desired(self) -> DesiredRegistration:
        """The registration as it was desired; its URL is not stored."""
        return DesiredRegistration(
            self.integration, self.name, "", self.shown_url, self.registration
        )


@dataclass(frozen=True, slots=True)
class ActivationState:
    """Whether an integration is active, and its public URL.

    Attributes:
        integration: Its name.
        is_active: Whether its registrations are desired.
        is_switched_on: Whether its deployments were last switched on, rather than off or never.
        public_url: The gateway's URL, as last given.
    """

    integration: str
    is_active: bool
    is_switched_on: bool
    public_url: str


class ActivationLedger:
    """The ledger as one activation sees it.

    Args:
        engine: The state database.
        run_id: The run; its retry continues at once, and so does any other run if this run's
            process on this machine is dead.
        lease_s: Seconds until the lease expires; longer than the slowest call with its retries.
        clock: Returns aware UTC instants.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        run_id: str,
        lease_s: float = 600,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._engine = engine
        self._run_id = run_id
        self._owner = f"{_host()}/{os.getpid()}/{run_id}"
        self._clock = clock
        self._leases = Leases(
            key=ACTIVATIONS.c.integration,
            lease_s=lease_s,
            clock=clock,
            system="activation",
            operation="record",
            lost="another activation took over; leave it to that one",
        )

    def begin(
        self, integration: str, *, is_active: bool | None = None, public_url: str | None = None
    ) -> ActivationState:
        """Lease the integration, and record its new state.

        Args:
            integration: Its name.
            is_active: None leaves it unchanged.
            public_url: None leaves it unchanged.

        Raises:
            UpstreamBusyError: Another activation holds the lease.
        """
        now = self._clock()
        with writing(self._engine) as connection:
            row = self._leases.find_or_insert(
                connection,
                {
                    "integration": integration,
                    "is_active": False,
                    "is_switched_on": False,
                    "public_url": "",
                    "owner": self._owner,
                    "changed_at": now,
                },
            )
            values: dict[str, Any] = {}
            if is_active is not None:
                values |= {"is_active": is_active, "changed_at": now}
            if public_url is not None:
                values["public_url"] = public_url
            leased = self._leases.acquire(
                connection,
                row,
                owner=self._owner,
                is_free=self._may_take_from(row.owner),
                **values,
            )
        if leased is None:
            raise UpstreamBusyError(
                "another activation of this integration is at work, or its machine died "
                f"less than {self._leases.lease_s:.0f} s ago; try again later",
                system="activation",
                operation="begin",
                record=integration,
                retry_after_s=(row.lease_until_at - now).total_seconds(),
            )
        return _state(leased)

    def record_switched(self, integration: str, *, on: bool) -> None:
        """Record whether its deployments were switched on or off.

        Raises:
            LeaseLostError: Another activation took over.
        """
        with self._working(integration, is_switched_on=on):
            pass

    def end(self, integration: str) -> None:
        """Release the lease of the integration."""
        with writing(self._engine) as connection:
            self._leases.release(connection, integration, self._owner)

    def states(self) -> list[ActivationState]:
        """Return every integration that was ever activated, by name."""
        query = select(ACTIVATIONS).order_by(ACTIVATIONS.c.integration)
        with reading(self._engine) as connection:
            return [_state(row) for row in connection.execute(query)]

    def entries(self, integration: str | None = None) -> list[RegistrationEntry]:
        """Return what is, or may be, registered, for all integrations or for one."""
        query = select(REGISTRATIONS).order_by(
            REGISTRATIONS.c.integration, REGISTRATIONS.c.name, REGISTRATIONS.c.created_at
        )
        if integration is not None:
            query = query.where(REGISTRATIONS.c.integration == integration)
        with reading(self._engine) as connection:
            return [_entry(row) for row in connection.execute(query)]

    def registered_at(self, place: str) -> dict[str, str]:
        """Return the third party's id to our id for everything registered at one place."""
        query = select(REGISTRATIONS.c.remote_id, REGISTRATIONS.c.id).where(
            REGISTRATIONS.c.place == place, REGISTRATIONS.c.remote_id.is_not(None)
        )
        with reading(self._engine) as connection:
            return {row.remote_id: row.id for row in connection.execute(query)}

    def intend(self, desired: DesiredRegistration, place: str) -> RegistrationEntry:
        """Record the intention to register it there, before doing so.

        Raises:
            LeaseLostError: Another activation took over.
        """
        now = self._clock()
        with self._working(desired.integration) as connection:
            row = connection.execute(
                select(REGISTRATIONS).where(
                    REGISTRATIONS.c.integration == desired.integration,
                    REGISTRATIONS.c.name == desired.name,
                    REGISTRATIONS.c.place == place,
                )
            ).one_or_none()
            declaration = desired.registration.model_dump_json()
            if row is None:
                id_ = uuid.uuid4().hex
                connection.execute(
                    insert(REGISTRATIONS).values(
                        id=id_,
                        integration=desired.integration,
                        name=desired.name,
                        place=place,
                        declaration=declaration,
                        shown_url=desired.shown_url,
                        url_digests=orjson.dumps([desired.url_digest]).decode(),
                        state="intended",
                        created_at=now,
                        updated_at=now,
                    )
                )
            else:
                id_ = row.id
                digests = [
                    one for one in orjson.loads(row.url_digests) if one != desired.url_digest
                ]
                connection.execute(
                    _entry_of(id_).values(
                        declaration=declaration,
                        shown_url=desired.shown_url,
                        url_digests=orjson.dumps([*digests, desired.url_digest]).decode(),
                    )
                )
            return _entry(
                connection.execute(select(REGISTRATIONS).where(REGISTRATIONS.c.id == id_)).one()
            )

    def record(
        self, entry: RegistrationEntry, remote_id: str, *, secret_digest: str | None
    ) -> None:
        """Record that it is there as desired, and calls only the last of its URLs.

        Raises:
            LeaseLostError: Another activation took over.
        """
        now = self._clock()
        with self._working(entry.integration) as connection:
            connection.execute(
                _entry_of(entry.id).values(
                    state="registered",
                    remote_id=remote_id,
                    url_digests=orjson.dumps([entry.url_digests[-1]]).decode(),
                    secret_digest=secret_digest,
                    problem=None,
                    updated_at=now,
                )
            )

    def record_problem(self, entry: RegistrationEntry, problem: str) -> None:
        """Record that it could not be registered or removed.

        Raises:
            LeaseLostError: Another activation took over.
        """
        now = self._clock()
        with self._working(entry.integration) as connection:
            connection.execute(_entry_of(entry.id).values(problem=problem, updated_at=now))

    def forget(self, entry: RegistrationEntry) -> None:
        """Record that it is no longer there.

        Raises:
            LeaseLostError: Another activation took over.
        """
        with self._working(entry.integration) as connection:
            connection.execute(delete(REGISTRATIONS).where(REGISTRATIONS.c.id == entry.id))

    def _may_take_from(self, owner: str) -> bool:
        host, process, run_id = owner.split("/", 2)
        return run_id == self._run_id or (host == _host() and not _lives(int(process)))

    @contextmanager
    def _working(self, integration: str, **values: Any) -> Iterator[Connection]:
        """Open a transaction in which the lease is ours and is renewed."""
        with writing(self._engine) as connection:
            self._leases.renew(connection, integration, self._owner, **values)
            yield connection


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _entry_of(id_: str) -> Update:
    return update(REGISTRATIONS).where(REGISTRATIONS.c.id == id_)


def _state(row: Row[Any]) -> ActivationState:
    return ActivationState(row.integration, row.is_active, row.is_switched_on, row.public_url)


def _entry(row: Row[Any]) -> RegistrationEntry:
    return RegistrationEntry(
        id=row.id,
        integration=row.integration,
        name=row.name,
        place=row.place,
        registration=_DECLARATION.validate_json(row.declaration),
        shown_url=row.shown_url,
        url_digests=tuple(orjson.loads(row.url_digests)),
        is_intended=row.state == "intended",
        remote_id=row.remote_id,
        secret_digest=row.secret_digest,
        problem=row.problem,
        updated_at=row.updated_at,
    )
