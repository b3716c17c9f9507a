"""The ledger of picked-up files: who has which, how far they came, and what is finished.

A file is known by importer, place, path and version. Only one run holds it at a time, by a lease
with a fencing token: a run whose lease was taken over can no longer write.

    leased ── all records sent ──► imported ── moved away ──► settled
       ├────── the file is bad ───► failing ── moved away ──► failed
       └────── try again later ───► released
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, insert, select

from tasks.core.connectors.folders.protocol import RemoteFile
from tasks.core.state.database import insert_or_ignore, reading, writing
from tasks.core.state.leases import Leases, utc_now
from tasks.core.sync.file_import.tables import BATCHES, FILES

_NAMES_A_QUERY = 500


@dataclass(frozen=True, slots=True)
class FileLease:
    """The right to work on one file until the lease runs out.

    Attributes:
        id: Stable over every attempt at this file; the root of its idempotency keys.
        path: Where the file was found; archive names and reports use it.
        version: As of the lease.
        token: Fencing token; a later lease has a greater one.
        state: What was reached: "leased", "imported" or "failing".
        crashes: How often a run died while it held this file.
        batch_size: Records a batch; kept, so that a resumed file is cut at the same places.
        target_path: Where the file goes, once that is decided.
        reason: Why it is "failing".
    """

    id: str
    path: str
    version: str
    token: int
    state: str
    crashes: int
    batch_size: int
    rows_imported: int
    rows_rejected: int
    target_path: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class FileUnavailable:
    """The file is not for us: finished earlier, or another run has it.

    Attributes:
        finished: True if it was imported and moved away, False if another run holds it.
        since_at: When it was finished or taken.
    """

    finished: bool
    since_at: datetime


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A file that a run took and did not finish.

    Attributes:
        file: As it was when it was leased.
        found_at: Where it should be now: in the error folder if it failed, else where it was.
    """

    file: RemoteFile
    found_at: str
    state: str


class FileLedger:
    """The ledger as one importer sees one place.

    Args:
        engine: The state database.
        importer: What the files are imported as; two importers may read the same folder.
        place: The remote folder's `system`.
        owner: The run; a retried run has the same owner and takes its own files up again.
        lease_s: How long a lease lasts without being renewed.
        clock: Gives aware UTC instants.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        importer: str,
        place: str,
        owner: str,
        lease_s: float = 300,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._engine = engine
        self._importer = importer
        self._place = place
        self._owner = owner
        self._clock = clock
        self._leases = Leases(
            key=FILES.c.id,
            lease_s=lease_s,
            clock=clock,
            system=place,
            operation="import",
            lost="the lease ran out and another run took the file over; nothing is lost, that run "
            "goes on where this one stopped",
        )

    def finished(self, files: Iterable[RemoteFile]) -> set[str]:
        """The paths of those files whose listed version was imported and moved away before."""
        by_identity = {self._identity(file.path, file.version): file.path for file in files}
        identities = list(by_identity)
        paths: set[str] = set()
        with reading(self._engine) as connection:
            for start in range(0, len(identities), _NAMES_A_QUERY):
                query = select(FILES.c.identity).where(
                    FILES.c.identity.in_(identities[start : start + _NAMES_A_QUERY]),
                    FILES.c.state == "settled",
                )
                paths.update(by_identity[row.identity] for row in connection.execute(query))
        return paths

    def unfinished(self) -> list[Unfinished]:
        """The files that this run took in an earlier attempt and did not finish."""
        query = (
            select(FILES)
            .where(
                FILES.c.owner == self._owner,
                FILES.c.importer == self._importer,
                FILES.c.place == self._place,
                FILES.c.state != "settled",
            )
            .order_by(FILES.c.first_seen_at)
        )
        with reading(self._engine) as connection:
            return [_unfinished(row) for row in connection.execute(query)]

    def lease(
        self,
        file: RemoteFile,
        *,
        batch_size: int,
        continues: str | None = None,
        again: bool = False,
    ) -> FileLease | FileUnavailable:
        """Take a file, or learn who has it.

        Args:
            file: As listed just now.
            batch_size: Used if this file was never leased before.
            continues: The version under which this run had the file before it was mended: the
                entry goes on under the new version, so that what was sent is not sent again.
            again: Take it also if another run has finished it: with a new id, as if it was never
                seen. What this run itself has finished stays, so that a retry leaves it.
        """
        now = self._clock()
        with writing(self._engine) as connection:
            row = self._find(connection, file.path, file.version)
            if row is None and continues is not None:
                row = self._find(connection, file.path, continues)
            if row is None:
                return self._insert(connection, file, batch_size, now)
            if row.state == "settled":
                if not again or row.owner == self._owner:
                    return FileUnavailable(finished=True, since_at=row.updated_at)
                connection.execute(delete(FILES).where(FILES.c.id == row.id))
                return self._insert(connection, file, batch_size, now)
            leased = self._take_over(connection, row, file, now)
            return leased or FileUnavailable(finished=False, since_at=row.updated_at)

    def sent_batches(self, lease: FileLease) -> Mapping[int, str]:
        """Ordinal to digest of the batches that went through in earlier attempts."""
        query = select(BATCHES.c.ordinal, BATCHES.c.digest).where(BATCHES.c.file_id == lease.id)
        with reading(self._engine) as connection:
            return {row.ordinal: row.digest for row in connection.execute(query)}

    def record_batch(self, lease: FileLease, ordinal: int, digest: str, records: int) -> None:
        """Remember that a batch went through, and extend the lease.

        Raises:
            LeaseLostError: Another run took the file over.
        """
        with writing(self._engine) as connection:
            self._renew(connection, lease)
            connection.execute(
                delete(BATCHES).where(BATCHES.c.file_id == lease.id, BATCHES.c.ordinal == ordinal)
            )
            connection.execute(
                insert(BATCHES).values(
                    file_id=lease.id, ordinal=ordinal, digest=digest, records=records
                )
            )

    def extend(self, lease: FileLease) -> None:
        """Hold the file for another lease; same errors as `record_batch`."""
        with writing(self._engine) as connection:
            self._renew(connection, lease)

    def mark_imported(
        self, lease: FileLease, *, target_path: str | None, rows_imported: int, rows_rejected: int
    ) -> FileLease:
        """All records are in; the file is about to go to `target_path` (None: stays or goes)."""
        with writing(self._engine) as connection:
            self._renew(
                connection,
                lease,
                state="imported",
                target_path=target_path,
                rows_imported=rows_imported,
                rows_rejected=rows_rejected,
                reason=None,
            )
        return replace(
            lease,
            state="imported",
            target_path=target_path,
            rows_imported=rows_imported,
            rows_rejected=rows_rejected,
        )

    def mark_failing(self, lease: FileLease, *, target_path: str, reason: str) -> FileLease:
        """The file is bad and about to go to the error folder at `target_path`."""
        with writing(self._engine) as connection:
            self._renew(connection, lease, state="failing", target_path=target_path, reason=reason)
        return replace(lease, state="failing", target_path=target_path, reason=reason)

    def settle(self, lease: FileLease) -> None:
        """The file is imported and moved away: nothing is left to do."""
        with writing(self._engine) as connection:
            self._renew(connection, lease, state="settled")
            connection.execute(delete(BATCHES).where(BATCHES.c.file_id == lease.id))

    def fail(self, lease: FileLease) -> None:
        """The file is in the error folder; it is taken up again when somebody mends it."""
        with writing(self._engine) as connection:
            self._renew(connection, lease, state="failed")

    def release(self, lease: FileLease, *, reason: str) -> None:
        """Give the file back: the next run, or this one retried, goes on where this one stopped."""
        with writing(self._engine) as connection:
            self._renew(connection, lease, state="released", reason=reason)

    def forget(self, lease: FileLease) -> None:
        """The file is not what was listed (gone, or still being written): as if never seen."""
        with writing(self._engine) as connection:
            self._renew(connection, lease)
            connection.execute(delete(FILES).where(FILES.c.id == lease.id))

    def _identity(self, path: str, version: str) -> str:
        parts = f"{self._importer}\0{self._place}\0{path}\0{version}"
        return hashlib.sha256(parts.encode("utf-8", "surrogateescape")).hexdigest()

    def _find(self, connection: Connection, path: str, version: str) -> Row[Any] | None:
        return self._leases.find(connection, FILES.c.identity == self._identity(path, version))

    def _insert(
        self, connection: Connection, file: RemoteFile, batch_size: int, now: datetime
    ) -> FileLease | FileUnavailable:
        values = {
            "id": uuid.uuid4().hex,
            "identity": self._identity(file.path, file.version),
            "importer": self._importer,
            "place": self._place,
            "path": file.path,
            "version": file.version,
            "size": file.size,
            "state": "leased",
            "crashes": 0,
            "batch_size": batch_size,
            "rows_imported": 0,
            "rows_rejected": 0,
            "first_seen_at": now,
            "updated_at": now,
        } | self._leases.columns(self._owner)
        insert_or_ignore(connection, FILES, values, key=["identity"])
        row = self._find(connection, file.path, file.version)
        if row is None or row.id != values["id"]:  # another poller was faster by a moment
            return FileUnavailable(finished=False, since_at=now)
        return _lease(row)

    def _take_over(
        self, connection: Connection, row: Row[Any], file: RemoteFile, now: datetime
    ) -> FileLease | None:
        given_back = row.state in ("released", "failed")
        back_to_work = given_back or file.version != row.version
        leased = self._leases.acquire(
            connection,
            row,
            owner=self._owner,
            is_free=given_back,
            identity=self._identity(file.path, file.version),
            version=file.version,
            size=file.size,
            state="leased" if back_to_work else row.state,
            # whoever stops in an orderly way leaves another state behind
            crashes=row.crashes + 1 if row.state == "leased" else 0,
            updated_at=now,
        )
        return None if leased is None else _lease(leased)

    def _renew(self, connection: Connection, lease: FileLease, **values: Any) -> None:
        values["updated_at"] = self._clock()
        self._leases.renew(connection, lease.id, lease.token, record=lease.path, **values)


def batch_key(lease: FileLease, ordinal: int, digest: str) -> str:
    """The idempotency key of a batch: the same for the same records of the same file."""
    return f"{lease.id}-{ordinal}-{digest[:16]}"


def _lease(row: Row[Any]) -> FileLease:
    return FileLease(
        id=row.id,
        path=row.path,
        version=row.version,
        token=row.token,
        state=row.state,
        crashes=row.crashes,
        batch_size=row.batch_size,
        rows_imported=row.rows_imported,
        rows_rejected=row.rows_rejected,
        target_path=row.target_path,
        reason=row.reason,
    )


def _unfinished(row: Row[Any]) -> Unfinished:
    return Unfinished(
        file=RemoteFile(row.path, row.size, row.first_seen_at, row.version),
        found_at=row.target_path if row.state == "failed" else row.path,
        state=row.state,
    )
