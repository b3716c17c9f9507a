"""One attempt at one file: its lease, its counts, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from blocks.errors import IntegrationError
from tasks.core.formats.records.record import Reject
from tasks.core.sync.batches.rejects_file import RejectFile
from tasks.core.sync.batches.result import Counts, RejectedRecord, Result, keep_rejects
from tasks.core.sync.file_import.after_import import (
    archive_path,
    error_path,
    free_path,
    write_error_note,
)
from tasks.core.sync.file_import.job import FileImportJob, FileImportResult
from tasks.core.sync.file_import.ledger import FileLease
from tasks.core.sync.file_import.selection import done_file_of
from tasks.core.threads import check_cancelled


@dataclass(slots=True)
class Work:
    """One attempt at one file.

    Attributes:
        result: What became of it so far.
        rejects: Its rejected rows, while it is read.
    """

    job: FileImportJob
    lease: FileLease
    source_path: str
    progress: Callable[[float], None]
    result: FileImportResult
    rejects: RejectFile | None = None
    extended_s: float = field(default_factory=time.monotonic)

    def heartbeat(self) -> None:
        """Keep the lease while something takes long; notice a cancelled run."""
        check_cancelled()
        if time.monotonic() - self.extended_s > self.job.lease_s / 4:
            self.job.ledger.extend(self.lease)
            self.extended_s = time.monotonic()

    def reject(self, reject: Reject) -> None:
        """Keep a rejected row, to be shown and for the reject file."""
        self.result.counts += Counts(rejected=1)
        if self.rejects is not None:
            self.rejects.add(reject)
        shown = RejectedRecord(
            self.lease.path, reject.column, reject.reason, reject.line, reject.page
        )
        keep_rejects(self.result.rejects, [shown])

    def ended(
        self, result: Result, now_at: str | None, reason: str | None = None
    ) -> FileImportResult:
        """The result of the attempt."""
        self.result.result, self.result.now_at, self.result.reason = result, now_at, reason
        return self.result

    def store_rejects(self, path: str) -> str | None:
        """Put the reject file beside where the file goes."""
        if self.rejects is not None:
            self.result.rejects_at = self.rejects.store(self.job.folder, path)
        return self.result.rejects_at


def put_file_away(work: Work) -> FileImportResult:
    """Everything was sent: store the rejects, decide where the file goes, and move it there."""
    job, lease, options = work.job, work.lease, work.job.after_import
    now = job.clock()
    target = None
    if options.on_success == "move":
        wanted = archive_path(options, lease.path, at=now, run_id=job.run_id)
        target = free_path(job.folder, wanted, options.on_collision)
    work.store_rejects(target or error_path(options, lease.path, at=now, run_id=job.run_id))
    work.lease = job.ledger.mark_imported(
        lease,
        target_path=target,
        rows_imported=work.result.counts.records,
        rows_rejected=work.result.counts.rejected,
    )
    return finish_putting_away(work)


def finish_putting_away(work: Work) -> FileImportResult:
    """Move, delete or keep an imported file; safe to repeat."""
    job, lease = work.job, work.lease
    target = (
        None if job.after_import.on_success == "delete" else lease.target_path or work.source_path
    )
    was_there = take_away(job, work.source_path, lease.version, target=target)
    if not was_there and target is not None and job.folder.stat(target) is None:
        target = None
    if work.source_path != lease.path:  # mended in the error folder: clear what stood beside it
        job.folder.delete(f"{work.source_path}.err.json")
        job.folder.delete(f"{work.source_path}.rejects.csv")
    job.ledger.settle(lease)
    work.result.counts = replace(
        work.result.counts, records=lease.rows_imported, rejected=lease.rows_rejected
    )
    return work.ended("imported", target)


def quarantine(work: Work, error: IntegrationError) -> FileImportResult:
    """Put a bad file into the error folder, with the reason beside it."""
    job, lease, options = work.job, work.lease, work.job.after_import
    target = work.source_path
    if work.source_path == lease.path:  # else it is in the error folder already
        wanted = error_path(options, lease.path, at=job.clock(), run_id=job.run_id)
        target = free_path(job.folder, wanted, "number")
    note = {
        "file": lease.path,
        "place": job.folder.system,
        "failed_at": job.clock().isoformat(timespec="seconds"),
        "run_id": job.run_id,
        "what": error.message,
        "operation": error.operation,
        "line": getattr(error, "line", None),
        "rejected_rows": work.store_rejects(target),
        "how_to_mend": "Mend the file here and press Retry on the run; or drop the mended file "
        f"as {lease.path!r} again, and the next run takes it.",
    }
    write_error_note(job.folder, target, note)
    work.lease = job.ledger.mark_failing(lease, target_path=target, reason=error.message)
    return finish_quarantine(work, error.message)


def finish_quarantine(work: Work, reason: str) -> FileImportResult:
    """Move a bad file to the error folder; safe to repeat."""
    target = work.lease.target_path or work.source_path
    take_away(work.job, work.source_path, work.lease.version, target=target)
    work.job.ledger.fail(work.lease)
    return work.ended("failed", target, reason)


def take_away(job: FileImportJob, path: str, version: str, *, target: str | None) -> bool:
    """Move a file, or delete it, with its done file; a newer one of the same name stays.

    Args:
        job: How.
        path: Where the file is.
        version: As it was read; what is there in another version came later.
        target: Where to; None deletes it, `path` itself keeps it there.

    Returns:
        Whether it was still there: an earlier attempt may have taken it.
    """
    now = job.folder.stat(path)
    if now is None or now.version != version:
        return False
    if job.done_file:
        # Before its file: behind it this could be the done file of the next one.
        job.folder.delete(done_file_of(path, job.done_file))
    if target is None:
        job.folder.delete(path)
    elif target != path:
        job.folder.move(path, target, overwrite=job.after_import.on_collision == "overwrite")
    return True


def where(reject: RejectedRecord) -> str:
    """Place and reason of a rejected row, in words."""
    place = f"line {reject.line}" if reject.page is None else f"page {reject.page}"
    column = f", column {reject.field!r}" if reject.field else ""
    return f"{place}{column}: {reject.reason}"
