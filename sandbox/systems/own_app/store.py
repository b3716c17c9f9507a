"""The application's SQLite file: records by business key, and answers by idempotency key."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import orjson

from sandbox.systems.own_app.outbox import Change, Outbox
from sandbox.systems.own_app.records import RESOURCES

_REMEMBERED_FOR = timedelta(hours=24)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    resource TEXT NOT NULL, key TEXT NOT NULL, data TEXT NOT NULL, changed_at TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1, PRIMARY KEY (resource, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS record_by_change ON record (resource, changed_at, key);
CREATE TABLE IF NOT EXISTS deleted_record (
    resource TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (resource, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answer (
    idempotency_key TEXT PRIMARY KEY, digest BLOB NOT NULL, status INTEGER NOT NULL,
    body BLOB NOT NULL, answered_at TEXT NOT NULL
);
"""
_UPSERT = """
INSERT INTO record (resource, key, data, changed_at, version) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    data = excluded.data, changed_at = excluded.changed_at, version = excluded.version
"""


class Row(NamedTuple):
    """A stored record.

    Attributes:
        key: Its business key.
        data: Its JSON text.
        changed_at: When it last changed, RFC 3339 in UTC.
        version: Grows by one with each change; one that comes after its deletion carries on.
    """

    key: str
    data: str
    changed_at: str
    version: int

    def json(self) -> str:
        """The record as the API shows it."""
        return f'{self.data[:-1]},"changed_at":"{self.changed_at}","version":{self.version}}}'


class Upserted(NamedTuple):
    """What became of the records of an upsert."""

    created: int
    updated: int
    unchanged: int


class Answer(NamedTuple):
    """What a request with an idempotency key was answered."""

    digest: bytes
    status: int
    body: bytes


class Store:
    """Used from one thread at a time; every change happens inside `transaction`.

    Attributes:
        outbox: What subscribers are to be told.
        on_commit: Called after each transaction.
    """

    def __init__(self, database: Path) -> None:
        database.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(
            database, isolation_level=None, check_same_thread=False, timeout=30
        )
        self._connection.execute("PRAGMA journal_mode=WAL")
        # What the application acknowledged may be lost by a power cut: it is a sandbox.
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(_SCHEMA)
        self._add_missing_columns()
        self._connection.execute(
            "DELETE FROM answer WHERE answered_at < ?",
            [_rfc3339(datetime.now(UTC) - _REMEMBERED_FOR)],
        )
        self.outbox = Outbox(self._connection)
        self.on_commit: Callable[[], None] = lambda: None
        self._source: str | None = None
        self._last_change_at = self._newest_change_at()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def transaction(self, *, source: str | None = None) -> Iterator[None]:
        """All changes inside happen, and are told to subscribers, together or not at all.

        Args:
            source: Who makes the changes, for the subscribers.
        """
        self._source = source
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        self.on_commit()

    def upsert(self, resource: str, records: Sequence[tuple[str, str]]) -> Upserted:
        """Insert or replace (key, JSON text) pairs; equal ones keep their change instant.

        Records that come without `external_ids` keep those they have.
        """
        keys = orjson.dumps([key for key, _ in records]).decode()
        found: dict[str, tuple[str, int]] = {
            key: (data, version)
            for key, data, version in self._connection.execute(
                "SELECT key, data, version FROM record "
                "WHERE resource = ? AND key IN (SELECT value FROM json_each(?))",
                [resource, keys],
            )
        }
        known = {key: data for key, (data, _) in found.items()}
        created = updated = 0
        changed: dict[str, str] = {}
        for key, given in records:
            before = known.get(key)
            data = _keeping_external_ids(given, before)
            if before == data:
                continue
            created += before is None
            updated += before is not None
            known[key] = changed[key] = data
        changed_at = self._next_change_at()
        versions = {key: version for key, (_, version) in found.items()}
        if len(versions) < len(changed):
            versions = self._versions_of_deleted(resource, keys) | versions
        rows = [
            Row(key, data, changed_at, versions.get(key, 0) + 1) for key, data in changed.items()
        ]
        self._connection.executemany(_UPSERT, [(resource, *row) for row in rows])
        self._tell(resource, [("updated" if row.key in found else "created", row) for row in rows])
        return Upserted(created, updated, len(records) - created - updated)

    def get(self, resource: str, key: str) -> Row | None:
        """One record, if there is one."""
        found = self._connection.execute(
            "SELECT key, data, changed_at, version FROM record WHERE resource = ? AND key = ?",
            [resource, key],
        ).fetchone()
        return Row(*found) if found else None

    def delete(self, resource: str, key: str) -> bool:
        """Remove one record; tells whether there was one."""
        row = self.get(resource, key)
        if row is None:
            return False
        self._connection.execute(
            "DELETE FROM record WHERE resource = ? AND key = ?", [resource, key]
        )
        last = row._replace(changed_at=self._next_change_at(), version=row.version + 1)
        self._connection.execute(
            "REPLACE INTO deleted_record VALUES (?, ?, ?)", [resource, key, last.version]
        )
        self._tell(resource, [("deleted", last)])
        return True

    def changed_after(
        self,
        resource: str,
        position: tuple[str, str],
        *,
        since: str,
        limit: int,
        having: Mapping[str, str] | None = None,
    ) -> list[Row]:
        """Records in the order they last changed.

        Args:
            resource: The collection.
            position: (changed_at, key) of the last record already seen.
            since: Oldest change instant, inclusive.
            limit: At most so many.
            having: Field to the text that it must hold, in whatever case.
        """
        conditions, wanted = "", []
        for field, text in (having or {}).items():
            conditions += " AND lower(json_extract(data, ?)) = lower(?)"
            wanted += [f"$.{field}", text]
        rows = self._connection.execute(
            "SELECT key, data, changed_at, version FROM record WHERE resource = ? "  # noqa: S608
            f"AND (changed_at, key) > (?, ?) AND changed_at >= ?{conditions} "
            "ORDER BY changed_at, key LIMIT ?",
            [resource, *position, since, *wanted, limit],
        )
        return [Row(*row) for row in rows]

    def latest(self, resource: str, limit: int) -> list[Row]:
        """The records that changed last, newest first."""
        rows = self._connection.execute(
            "SELECT key, data, changed_at, version FROM record WHERE resource = ? "
            "ORDER BY changed_at DESC, key DESC LIMIT ?",
            [resource, limit],
        )
        return [Row(*row) for row in rows]

    def count(self, resource: str) -> int:
        """How many records there are."""
        found: tuple[int] = self._connection.execute(
            "SELECT count(*) FROM record WHERE resource = ?", [resource]
        ).fetchone()
        return found[0]

    def recall(self, idempotency_key: str) -> Answer | None:
        """What was answered under this key before."""
        found = self._connection.execute(
            "SELECT digest, status, body FROM answer WHERE idempotency_key = ?", [idempotency_key]
        ).fetchone()
        return Answer(*found) if found else None

    def remember(self, idempotency_key: str, answer: Answer) -> None:
        """Keep an answer, in the same transaction as the effect it tells of."""
        self._connection.execute(
            "INSERT INTO answer VALUES (?, ?, ?, ?, ?)",
            [idempotency_key, *answer, _rfc3339(datetime.now(UTC))],
        )

    def _tell(self, resource: str, changed: Sequence[tuple[str, Row]]) -> None:
        singular = RESOURCES[resource].singular
        if changed:
            self.outbox.tell(
                (
                    Change(f"{singular}.{what}", f"{resource}/{row.key}", row.json())
                    for what, row in changed
                ),
                at=changed[0][1].changed_at,
                source=self._source,
            )

    def _versions_of_deleted(self, resource: str, keys: str) -> dict[str, int]:
        return dict(
            self._connection.execute(
                "SELECT key, version FROM deleted_record "
                "WHERE resource = ? AND key IN (SELECT value FROM json_each(?))",
                [resource, keys],
            )
        )

    def _add_missing_columns(self) -> None:
        columns = {row[1] for row in self._connection.execute("PRAGMA table_info(record)")}
        if "version" not in columns:  # a file of an earlier sandbox
            self._connection.execute(
                "ALTER TABLE record ADD COLUMN version INTEGER NOT NULL DEFAULT 1"
            )

    def _next_change_at(self) -> str:
        # Strictly increasing even when the clock is not, so that paging by it misses nothing.
        self._last_change_at = max(
            datetime.now(UTC), self._last_change_at + timedelta(microseconds=1)
        )
        return _rfc3339(self._last_change_at)

    def _newest_change_at(self) -> datetime:
        (newest,) = self._connection.execute("SELECT max(changed_at) FROM record").fetchone()
        return datetime.fromisoformat(newest) if newest else datetime.min.replace(tzinfo=UTC)


def _keeping_external_ids(data: str, before: str | None) -> str:
    if before is None or '"external_ids":null' not in data or '"external_ids":{' not in before:
        return data
    record = orjson.loads(data)
    if "external_ids" in record and record["external_ids"] is None:
        record["external_ids"] = orjson.loads(before).get("external_ids")
    return orjson.dumps(record).decode()


def _rfc3339(instant: datetime) -> str:
    """UTC with microseconds always, so that text order is time order."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
