"""What a run is told about importing files, and what it tells of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel

from blocks.errors import IntegrationError
from tasks.core.connectors.folders.protocol import RemoteFolder
from tasks.core.formats.records.formats import FileFormat
from tasks.core.formats.records.record import Reject
from tasks.core.formats.records.validation import RecordValidator
from tasks.core.sync.batches.sink import RecordSink, Sent
from tasks.core.sync.file_import.after_import import AfterImport
from tasks.core.sync.file_import.ledger import FileLedger

Result = Literal["imported", "failed", "interrupted", "left", "duplicate"]


@dataclass(frozen=True, slots=True)
class FileImportJob:
    """What is the same for all files of a run.

    Attributes:
        model: What a record must be; its JSON form is what the application gets.
        validator: Checks records against `model`.
        file_format: None: by the file's name.
        batch_size: Records a request.
        all_or_nothing: Refuse the whole file for one bad row.
        max_file_bytes: Larger files are refused unread.
        max_crashes: So many runs may die over a file before it is quarantined.
        done_file: As in `FileSelection`.
        run_id: Goes into error notes.
        lease_s: How long leases last.
    """

    folder: RemoteFolder
    ledger: FileLedger
    sink: RecordSink
    model: type[BaseModel]
    validator: RecordValidator[BaseModel]
    after_import: AfterImport
    run_id: str
    file_format: FileFormat | None = None
    batch_size: int = 500
    all_or_nothing: bool = False
    max_file_bytes: int = 2 << 30
    max_crashes: int = 3
    done_file: str | None = None
    lease_s: float = 300
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class FileImportResult:
    """What became of one file.

    Attributes:
        path: Where it was found.
        result: "imported"; "failed": bad, in the error folder; "interrupted": goes on in the next
            run or on retry; "left": not ready or not ours; "duplicate": was imported before.
        now_at: Where it is now, or None if it is gone.
        rejects: The first hundred rejected rows, without their values.
        rejects_at: The file with all rejected rows.
        reason: Why it is not imported.
        error: What interrupted it.
    """

    path: str
    result: Result
    now_at: str | None = None
    rows_imported: int = 0
    rows_rejected: int = 0
    sent: Sent = field(default_factory=Sent)
    rejects: tuple[Reject, ...] = ()
    rejects_at: str | None = None
    reason: str | None = None
    error: IntegrationError | None = None
