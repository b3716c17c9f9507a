"""Imports rows: those that wait, each batch marked or deleted when it is in; or those that changed.

What changed is read page by page behind a cursor, which moves on when a page is in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from blocks.errors import MisconfiguredError
from tasks.core.connectors.sql.changed_rows import ChangedRows, farther, stopped_at
from tasks.core.connectors.sql.row_queue import RowQueue
from tasks.core.formats.records.formats import FileFormat
from tasks.core.sync.api_import.cursors import Cursors, StreamLease
from tasks.core.sync.batches.result import BatchResult, ImportResult
from tasks.core.sync.record_import.importing import ImportItem, RecordImporter


class FileColumn(BaseModel):
    """A column that holds whole files, in place of columns that hold the values of a record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str = Field(description="The column of the files' bytes.")
    name_column: str | None = Field(None, description="The column of their names.")
    file_format: FileFormat | None = Field(None, description="How to read them; empty: by name.")


def import_waiting_rows(
    queue: RowQueue,
    importer: RecordImporter,
    *,
    key: str,
    file: FileColumn | None = None,
    rows_at_once: int = 500,
    max_rows: int = 50_000,
) -> ImportResult:
    """Import the rows that wait; bad ones are marked with the reason, and the others go on.

    Args:
        queue: Where they wait.
        importer: Takes them.
        key: The column of the primary key.
        file: The column that holds files, if one does.
        rows_at_once: Rows locked while they are imported.
        max_rows: Rows at most.

    Raises:
        MisconfiguredError: A row is bad, and the table has no column to mark it.
        IntegrationError: Of the database or the application: the rows of the batch wait as
            before.
    """
    imported = _no_rows_yet(file)
    while imported.units < max_rows:
        limit = min(rows_at_once, max_rows - imported.units)
        with queue.lock(limit) as locked:
            if locked.rows:
                entries = [_entry(row, row[key], "", file) for row in locked.rows]
                taken = importer.take(entries)
                for position, reason in taken.bad.items():
                    locked.fail(locked.rows[position], reason)
                _count(imported, entries, taken)
        if len(locked.rows) < limit:
            imported.result = "done"
            break
    return imported


def import_changed_rows(
    reader: ChangedRows,
    importer: RecordImporter,
    cursors: Cursors,
    lease: StreamLease,
    *,
    version: str,
    key: str,
    file: FileColumn | None = None,
    rows_at_once: int = 500,
    max_rows: int = 50_000,
) -> ImportResult:
    """Import the rows behind the cursor, which moves on after each page.

    A bad row does not hold the others up: it is told, and comes again when it is mended, since
    that changes it.

    Args:
        reader: Reads them.
        importer: Takes them; must bear a row twice, as one that updates by its own key does.
        cursors: Keep how far the import has come.
        lease: Of the import's stream.
        version: The column that grows with each change.
        key: The column that tells rows of the same version apart.
        file: The column that holds files, if one does.
        rows_at_once: Rows a page.
        max_rows: Rows at most; what is left comes in the next run.

    Raises:
        LeaseLostError: Another run has taken the stream over.
        IntegrationError: Of the database or the application: the next run begins with the page
            that was under way.
    """
    imported = _no_rows_yet(file)
    page = reader.first_page(lease.value, limit=min(rows_at_once, max_rows))
    while page.rows:
        entries = [_entry(row, row[key], str(row[version]), file) for row in page.rows]
        _count(imported, entries, importer.take(entries))
        assert page.cursor is not None, "a page with rows has one"  # noqa: S101
        left = max_rows - imported.units
        reached = farther(lease.value, page.cursor) if left > 0 else stopped_at(page.cursor)
        lease = cursors.advance(lease, reached)
        if left <= 0:
            return imported
        page = reader.next_page(page.cursor, limit=min(rows_at_once, left))
    if page.cursor is not None and lease.value == stopped_at(page.cursor):
        cursors.advance(lease, page.cursor)  # the last run had stopped just at the end
    imported.result = "done"
    return imported


def _no_rows_yet(file: FileColumn | None) -> ImportResult:
    return ImportResult(unit="row", holds_files=file is not None)


def _count(imported: ImportResult, entries: Sequence[ImportItem], taken: BatchResult) -> None:
    reasons = [f"row {entries[at].name}: {reason}" for at, reason in taken.bad.items()]
    imported.add_units(len(entries), reasons)
    imported.add_records(taken)


def _entry(row: Mapping[str, Any], key: Any, version: str, file: FileColumn | None) -> ImportItem:
    identity = _digest([_text(key), version, row])
    if file is None:
        return ImportItem(_text(key), identity, row)
    try:
        content = row[file.column]
        file_name = str(row[file.name_column]) if file.name_column else ""
    except KeyError as exc:
        raise MisconfiguredError(
            f"the column {exc.args[0]!r} is not among those that are read; add it to columns",
            system="table",
            operation="read files",
        ) from exc
    name = f"{_text(key)} {file_name}".rstrip()
    if isinstance(content, bytearray | memoryview):
        content = bytes(content)
    elif isinstance(content, str):
        content = content.encode()
    return ImportItem(name, identity, content if isinstance(content, bytes) else {}, file_name)


def _digest(parts: Iterable[Any]) -> str:
    document = orjson.dumps(list(parts), default=_text, option=orjson.OPT_NON_STR_KEYS)
    return hashlib.sha256(document).hexdigest()


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes | bytearray | memoryview) else str(value)
