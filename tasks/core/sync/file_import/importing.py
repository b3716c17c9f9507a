"""Imports one file: every good record reaches the application once, and the file is moved away.

Safe to kill anywhere and to call again: what was sent is remembered batch by batch, what was sent
and not yet remembered carries the same idempotency key again, and a file whose records are all in
only has its move finished.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

from pydantic import BaseModel

from blocks.errors import (
    BadPayloadError,
    IntegrationError,
    LeaseLostError,
    MisconfiguredError,
    PermanentError,
)
from tasks.core.connectors.folders.protocol import FileChangedError, RemoteFile
from tasks.core.formats.records.reading import detect_format, read_records
from tasks.core.formats.records.record import Reject
from tasks.core.formats.records.validation import Valid
from tasks.core.sync.batches.rejects_file import RejectFile
from tasks.core.sync.batches.result import Counts
from tasks.core.sync.batches.sender import BatchSender, digest_of
from tasks.core.sync.batches.sink import Refused
from tasks.core.sync.file_import.after_import import (
    archive_path,
    free_path,
    working_directory,
)
from tasks.core.sync.file_import.job import FileImportJob, FileImportResult
from tasks.core.sync.file_import.ledger import FileUnavailable, batch_key
from tasks.core.sync.file_import.work import (
    Work,
    finish_putting_away,
    finish_quarantine,
    put_file_away,
    quarantine,
    take_away,
    where,
)

_CHUNK_BYTES = 1 << 20
_FORMATS_WITH_LINES = ("csv", "xml", "jsonl")
_HEARTBEAT_RECORDS = 10_000


def import_file(
    job: FileImportJob,
    file: RemoteFile,
    *,
    original: RemoteFile | None = None,
    again: bool = False,
    progress: Callable[[float], None] = lambda _fraction: None,
) -> FileImportResult:
    """Import one file and put it away.

    Args:
        job: How.
        file: Where and what it is now.
        original: As it was found, if an earlier attempt moved it to the error folder or the
            operator mended it since: its entry in the ledger goes on.
        again: Import it also if another run has imported it in this very version.
        progress: Told the fraction done, 0 to 1, now and then; not for formats without lines.

    Returns:
        What became of it; the expected ways to fail are outcomes, not exceptions.

    Raises:
        asyncio.CancelledError: The run is cancelled; the file waits for the next one.
    """
    picked_up = original or file
    leased = job.ledger.lease(
        replace(file, path=picked_up.path),
        batch_size=job.batch_size,
        continues=original.version if original else None,
        again=again,
    )
    if isinstance(leased, FileUnavailable):
        return _unavailable(picked_up.path, file.path, leased)
    result = FileImportResult(path=picked_up.path, now_at=file.path)
    work = Work(job, leased, file.path, progress, result)
    try:
        return _advance(work, replace(file, version=leased.version))
    except LeaseLostError as exc:
        return FileImportResult.at(picked_up.path, "left", file.path, exc.message)
    except asyncio.CancelledError:
        job.ledger.release(work.lease, reason="the run was cancelled")
        raise
    except IntegrationError as exc:
        job.ledger.release(work.lease, reason=str(exc))
        return FileImportResult.at(picked_up.path, "interrupted", file.path, str(exc), exc)
    except Exception as exc:
        job.ledger.release(work.lease, reason=type(exc).__name__)
        raise


def settle_duplicate(job: FileImportJob, file: RemoteFile) -> FileImportResult:
    """Deal with a file that was imported before in this very version.

    Returns:
        What became of it; "interrupted" if it cannot be moved away.
    """
    reason = "imported before in this version; nothing was sent"
    if job.after_import.on_success == "keep" or job.after_import.on_duplicate == "keep":
        return FileImportResult.at(file.path, "duplicate", file.path, reason)
    try:
        target = None
        if job.after_import.on_success == "move":
            wanted = archive_path(job.after_import, file.path, at=job.clock(), run_id=job.run_id)
            target = free_path(job.folder, wanted, job.after_import.on_collision)
        was_there = take_away(job, file.path, file.version, target=target)
    except IntegrationError as exc:
        reason = f"imported before, and cannot be moved away: {exc}"
        return FileImportResult.at(file.path, "interrupted", file.path, reason, exc)
    if not was_there:
        return FileImportResult.at(file.path, "left", file.path, "it changed since it was listed")
    return FileImportResult.at(file.path, "duplicate", target, reason)


def _unavailable(path: str, now_at: str, unavailable: FileUnavailable) -> FileImportResult:
    if unavailable.finished:
        return FileImportResult.at(path, "duplicate", now_at, "it was imported meanwhile")
    return FileImportResult.at(
        path,
        "left",
        now_at,
        f"another run has had it since {unavailable.since_at:%H:%M:%S} UTC",
    )


def _advance(work: Work, file: RemoteFile) -> FileImportResult:
    lease, job = work.lease, work.job
    if lease.state == "imported":  # an earlier attempt was stopped between import and move
        return finish_putting_away(work)
    if lease.state == "failing":
        return finish_quarantine(work, lease.reason or "")
    if lease.crashes >= job.max_crashes:
        return quarantine(
            work,
            PermanentError(
                f"{lease.crashes} runs died while importing it; look at the workers' logs and "
                "memory before you drop it again",
                system=job.folder.system,
                operation="import",
                record=lease.path,
            ),
        )
    if file.size > job.max_file_bytes:
        return quarantine(
            work,
            BadPayloadError(
                f"it has {file.size:,} bytes, the limit is {job.max_file_bytes:,} (max_file_bytes)",
                system=job.folder.system,
                operation="download",
                record=lease.path,
            ),
        )
    with working_directory() as directory:
        try:
            local = _download(work, file, directory)
        except FileChangedError as exc:  # vanished, or still being written
            job.ledger.forget(lease)
            return FileImportResult.at(lease.path, "left", None, exc.message)
        with RejectFile(directory) as work.rejects:
            return _import_local(work, local)


def _import_local(work: Work, local: Path) -> FileImportResult:
    try:
        if work.job.all_or_nothing:
            _check_all(work, local)
        _send_all(work, local)
        counts = work.result.counts
        if not counts.records and counts.rejected:
            raise _bad_rows(
                work, f"every one of its {counts.rejected} rows was rejected, {_first(work)}"
            )
    except MisconfiguredError:
        raise
    except PermanentError as exc:
        return quarantine(work, exc)
    return put_file_away(work)


def _download(work: Work, file: RemoteFile, directory: Path) -> Path:
    folder = work.job.folder
    target = directory / "content"
    with folder.open(file) as remote, target.open("wb") as local:
        while chunk := remote.read(_CHUNK_BYTES):
            work.heartbeat()
            try:
                local.write(chunk)
            except OSError as exc:
                raise MisconfiguredError(
                    f"no room for its {file.size:,} bytes in the temporary directory "
                    f"({exc.strerror}); free some, or set TMPDIR to a larger disk",
                    system="this machine",
                    operation="download",
                    record=file.path,
                ) from exc
    return target


def _validated(work: Work, local: Path) -> Iterator[Valid[BaseModel] | Reject]:
    """Read and validate; keep the lease and tell the progress on the way."""
    job = work.job
    name = work.lease.path.rpartition("/")[2]
    file_format = job.file_format or detect_format(name, system=job.folder.system)
    lines = _count_lines(local) if file_format.kind in _FORMATS_WITH_LINES else 0
    records = read_records(local, file_format, system=job.folder.system, name=name)
    try:
        for number, item in enumerate(job.validator.validate(records)):
            if number % _HEARTBEAT_RECORDS == _HEARTBEAT_RECORDS - 1:
                work.heartbeat()
                if item.line < lines:  # not so for packed files, whose lines are not counted
                    work.progress(item.line / lines)
            yield item
    finally:
        records.close()


def _check_all(work: Work, local: Path) -> None:
    for item in _validated(work, local):
        if isinstance(item, Reject):
            work.reject(item)
    if work.result.counts.rejected:
        raise _bad_rows(
            work,
            f"{work.result.counts.rejected} rows are bad, {_first(work)}; nothing "
            "was imported, since this import takes all rows or none (all_or_nothing)",
        )


def _send_all(work: Work, local: Path) -> None:
    sender = work.job.sender()
    done_before = work.job.ledger.sent_batches(work.lease)
    ordinals = count()
    batch: list[Valid[BaseModel]] = []
    for item in _validated(work, local):
        if isinstance(item, Reject):
            work.reject(item)
            continue
        batch.append(item)
        if len(batch) == work.lease.batch_size:
            _send_batch(work, sender, next(ordinals), batch, done_before)
            batch = []
    if batch:
        _send_batch(work, sender, next(ordinals), batch, done_before)


def _send_batch(
    work: Work,
    sender: BatchSender,
    ordinal: int,
    batch: list[Valid[BaseModel]],
    done_before: Mapping[int, str],
) -> None:
    work.heartbeat()
    records = sender.encode([valid.item for valid in batch])
    digest = digest_of(records)
    if digest == done_before.get(ordinal):
        work.result.counts += Counts(records=len(batch))
        return

    def refuse(refused: Refused) -> None:
        for index, (field, reason) in refused.items():
            valid = batch[index]
            values = valid.item.model_dump(mode="json")
            work.reject(Reject(valid.line, field, reason, values, valid.page))
        if work.job.all_or_nothing:
            raise _refused_whole(work)
        work.heartbeat()

    sent = sender.send(
        records,
        count=len(batch),
        key_of=lambda digest: batch_key(work.lease, ordinal, digest),
        refuse=refuse,
    )
    # rejects are counted where they are noted
    work.result.counts += replace(sent, rejected=0)
    # Else not remembered as sent: a resumed import asks again, to know these rejects again.
    if not sent.rejected:
        work.job.ledger.record_batch(work.lease, ordinal, digest, len(batch))
        work.extended_s = time.monotonic()


def _refused_whole(work: Work) -> BadPayloadError:
    counts = work.result.counts
    return _bad_rows(
        work,
        f"the application refuses {counts.rejected} rows, {_first(work)}; no more is imported, "
        "since this import takes all rows or none (all_or_nothing); "
        f"the {counts.records:,} rows of the batches before are in",
    )


def _bad_rows(work: Work, message: str) -> BadPayloadError:
    return BadPayloadError(
        message,
        system=work.job.folder.system,
        operation="import",
        record=work.lease.path,
        line=work.result.rejects[0].line,
    )


def _first(work: Work) -> str:
    return f"the first in {where(work.result.rejects[0])}"


def _count_lines(local: Path) -> int:
    with local.open("rb") as content:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: content.read(_CHUNK_BYTES), b""))
