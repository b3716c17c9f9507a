"""What a run is told about importing files, and what it tells of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from blocks.errors import IntegrationError
from tasks.core.connectors.folders.protocol import RemoteFolder
from tasks.core.formats.records.formats import FileFormat
from tasks.core.sync.batches.result import ImportResult, Result, counted
from tasks.core.sync.batches.sender import ImportJob
from tasks.core.sync.file_import.after_import import AfterImport
from tasks.core.sync.file_import.ledger import FileLedger


@dataclass(frozen=True, slots=True, kw_only=True)
class FileImportJob(ImportJob):
    """What is the same for all files of a run.

    Attributes:
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


@dataclass(slots=True, kw_only=True)
class FileImportResult(ImportResult):
    """What became of one file.

    Attributes:
        path: Where it was found.
        now_at: Where it is now, or None if it is gone.
        rejects_at: The file with all rejected rows.
    """

    path: str
    now_at: str | None = None
    rejects_at: str | None = None

    @classmethod
    def at(
        cls,
        path: str,
        result: Result,
        now_at: str | None,
        reason: str | None = None,
        error: IntegrationError | None = None,
    ) -> FileImportResult:
        """The result of a file of which no record was taken this time."""
        return cls(path=path, result=result, now_at=now_at, reason=reason, error=error)


@dataclass(slots=True, kw_only=True)
class FilesResult(ImportResult):
    """What became of the files of a run.

    Attributes:
        files: One result each, in the order in which they ended.
    """

    files: list[FileImportResult]

    @classmethod
    def of(cls, files: Sequence[FileImportResult]) -> FilesResult:
        """Count the files and their rows."""
        whole = cls(files=list(files), unit="file", result="done")
        imported = sum(each.result == "imported" for each in files)
        bad = [f"{each.path}: {each.reason}" for each in files if not each.is_good]
        whole.add_units(imported + len(bad), bad)
        for each in files:
            if each.result == "imported":
                whole.counts += each.counts
        return whole

    def _done(self) -> str:
        if not self.files:
            return "no files"
        rows = counted(self.counts.records, "row")
        return f"{self.imported} of {len(self.files)} files imported, {rows}"

    def _faults(self) -> str:
        rejected = self.counts.rejected
        rows = f", {counted(rejected, 'row')} rejected" if rejected else ""
        return rows + (f"; {self._named_reasons()}" if self.bad else "")
