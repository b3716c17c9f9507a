"""Imports one file: every good record reaches the application once, and the file is put away.

Safe to kill anywhere and to call again: what was sent is remembered batch by batch, what was sent
and not yet remembered carries the same idempotency key again, and a file whose records are all in
only has its move finished.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter

from blocks.errors import (
    BadPayloadError,
    IntegrationError,
    LeaseLostError,
    MisconfiguredError,
    PermanentError,
    TransientError,
    UpstreamRejectedError,
)
from tasks.plain.file_import.ledger import Claim, Held, Ledger, batch_key
from tasks.plain.file_import.pick_up import done_file_of
from tasks.plain.file_import.put_away import (
    PutAway,
    RejectFile,
    archive_path,
    error_path,
    free_path,
    working_directory,
    write_error_note,
)
from tasks.plain.file_import.sink import RecordSink, Sent
from tasks.plain.records.formats import FileFormat
from tasks.plain.records.reading import detect_format, read_records
from tasks.plain.records.record import Record, Reject
from tasks.plain.records.validation import RecordValidator, Valid
from tasks.plain.remote_folders.protocol import RemoteFile, RemoteFolder

Result = Literal["imported", "failed", "interrupted", "left", "duplicate"]
_CHUNK_BYTES = 1 << 20
_REJECTS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class ImportJob:
    """What is the same for all files of a run.

    Attributes:
        model: What a record must be; its JSON form is what the application gets.
        new_validator: Makes a validator of `model` for one file.
        file_format: None: by the file's name.
        batch_size: Records a request.
        all_or_nothing: Refuse the whole file for one bad row.
        max_file_bytes: Larger files are refused unread.
        max_crashes: So many runs may die over a file before it is set aside.
        done_file: As in `PickUp`.
        run_id: Goes into error notes.
        lease_s: How long the ledger's claims last.
    """

    folder: RemoteFolder
    ledger: Ledger
    sink: RecordSink
    model: type[BaseModel]
    new_validator: Callable[[], RecordValidator]
    put_away: PutAway
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
class Outcome:
    """What became of one file.

    Attributes:
        path: Where it was picked up.
        result: "imported"; "failed": bad, in the error folder; "interrupted": goes on in the next
            run or on retry; "left": not ready or not ours; "duplicate": was imported before.
        now_at: Where it is now, or None if it is gone.
        rejects: The first hundred rejected rows, without their values.
        rejects_at: The file with all rejected rows.
        reason: Why it is not imported.
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


class _StoppedError(Exception):
    """The run is being cancelled."""


def import_file(
    job: ImportJob,
    file: RemoteFile,
    *,
    original: RemoteFile | None = None,
    progress: Callable[[float], None] = lambda _fraction: None,
    stop: Event | None = None,
) -> Outcome:
    """Import one file and put it away.

    Args:
        job: How.
        file: Where and what it is now.
        original: As it was picked up, if an earlier attempt moved it to the error folder or the
            operator mended it since: its entry in the ledger goes on.
        progress: Told the fraction done, 0 to 1, now and then; not for formats without lines.
        stop: Set from outside to stop at the next batch.

    Returns:
        What became of it; the expected ways to fail are outcomes, not exceptions.
    """
    picked_up = original or file
    claimed = job.ledger.claim(
        replace(file, path=picked_up.path),
        batch_size=job.batch_size,
        continues=original.version if original else None,
    )
    if isinstance(claimed, Held):
        return _held(picked_up.path, file.path, claimed)
    work = _Work(job, claimed, file.path, progress, stop or Event())
    try:
        return _advance(work, replace(file, version=claimed.version))
    except LeaseLostError as exc:
        return Outcome(picked_up.path, "left", file.path, reason=exc.message)
    except _StoppedError:
        job.ledger.release(work.claim, reason="the run was cancelled")
        return Outcome(picked_up.path, "interrupted", file.path, reason="the run was cancelled")
    except (TransientError, MisconfiguredError) as exc:
        job.ledger.release(work.claim, reason=str(exc))
        return Outcome(picked_up.path, "interrupted", file.path, reason=str(exc))
    except Exception as exc:
        job.ledger.release(work.claim, reason=type(exc).__name__)
        raise


def settle_duplicate(job: ImportJob, file: RemoteFile) -> Outcome:
    """Deal with a file that was imported before in this very version."""
    reason = "imported before in this version; nothing was sent"
    if job.put_away.on_success == "keep" or job.put_away.on_duplicate == "keep":
        return Outcome(file.path, "duplicate", file.path, reason=reason)
    if job.put_away.on_success == "delete":
        job.folder.delete(file.path)
        return Outcome(file.path, "duplicate", None, reason=reason)
    target = archive_path(job.put_away, file.path, at=job.clock(), run_id=job.run_id)
    target = free_path(job.folder, target, job.put_away.on_collision)
    job.folder.move(file.path, target, overwrite=job.put_away.on_collision == "overwrite")
    return Outcome(file.path, "duplicate", target, reason=reason)


@dataclass(slots=True)
class _Work:
    """One attempt at one file."""

    job: ImportJob
    claim: Claim
    source_path: str
    progress: Callable[[float], None]
    stop: Event
    extended_s: float = field(default_factory=time.monotonic)

    def heartbeat(self) -> None:
        """Keep the lease while something takes long; notice a cancelled run."""
        if self.stop.is_set():
            raise _StoppedError
        if time.monotonic() - self.extended_s > self.job.lease_s / 4:
            self.job.ledger.extend(self.claim)
            self.extended_s = time.monotonic()


@dataclass(slots=True)
class _Tally:
    """What was counted while the records went by."""

    rejected: RejectFile
    imported: int = 0
    sent: Sent = field(default_factory=Sent)
    shown: list[Reject] = field(default_factory=list)

    def reject(self, reject: Reject) -> None:
        self.rejected.add(reject)
        if len(self.shown) < _REJECTS_SHOWN:
            self.shown.append(reject._replace(values={}))


def _held(path: str, now_at: str, held: Held) -> Outcome:
    if held.finished:
        return Outcome(path, "duplicate", now_at, reason="another run finished it meanwhile")
    return Outcome(
        path, "left", now_at, reason=f"another run has had it since {held.since_at:%H:%M:%S} UTC"
    )


def _advance(work: _Work, file: RemoteFile) -> Outcome:
    claim, job = work.claim, work.job
    if claim.state == "imported":  # an earlier attempt was stopped between import and move
        return _finish_putting_away(work)
    if claim.state == "failing":
        return _finish_failing(work, claim.reason or "")
    if claim.crashes >= job.max_crashes:
        return _fail(
            work,
            PermanentError(
                f"{claim.crashes} runs died while importing it; look at the workers' logs and "
                "memory before you drop it again",
                system=job.folder.system,
                operation="import",
                record=claim.path,
            ),
        )
    if file.size > job.max_file_bytes:
        return _fail(
            work,
            BadPayloadError(
                f"it has {file.size:,} bytes, the limit is {job.max_file_bytes:,} (max_file_bytes)",
                system=job.folder.system,
                operation="download",
                record=claim.path,
            ),
        )
    with working_directory() as directory:
        try:
            local = _download(work, file, directory)
        except BadPayloadError as exc:  # vanished, or still being written
            job.ledger.forget(claim)
            return Outcome(claim.path, "left", None, reason=exc.message)
        with RejectFile(directory) as rejected:
            return _import_local(work, local, _Tally(rejected))


def _import_local(work: _Work, local: Path, tally: _Tally) -> Outcome:
    job, claim = work.job, work.claim
    try:
        if job.all_or_nothing:
            _check_all(work, local, tally)
        _send_all(work, local, tally)
        if not tally.imported and tally.rejected.count:
            raise BadPayloadError(
                f"every one of its {tally.rejected.count} rows was rejected, the first in "
                f"{_where(tally.shown[0])}",
                system=job.folder.system,
                operation="import",
                record=claim.path,
                line=tally.shown[0].line,
            )
    except MisconfiguredError:
        raise
    except PermanentError as exc:
        return _fail(work, exc, tally)
    return _put_away(work, tally)


def _download(work: _Work, file: RemoteFile, directory: Path) -> Path:
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
    now = folder.stat(file.path)
    if now is None or now.version != file.version:
        state = "vanished" if now is None else "changed"
        raise BadPayloadError(
            f"it {state} while it was read; the next run looks at it again",
            system=folder.system,
            operation="download",
            record=file.path,
        )
    return target


def _validated(work: _Work, local: Path) -> Iterator[Valid | Reject]:
    name = work.claim.path.rpartition("/")[2]
    file_format = work.job.file_format or detect_format(name)
    records = read_records(local, file_format, system=work.job.folder.system, name=name)
    return iter(work.job.new_validator().validate(_watched(work, local, records)))


def _watched(
    work: _Work, local: Path, records: Iterable[Record | Reject]
) -> Iterator[Record | Reject]:
    lines = _count_lines(local)
    for number, record in enumerate(records):
        if number % 10_000 == 0 and number:
            work.heartbeat()
            if lines and record.page is None and record.line <= lines:
                work.progress(record.line / lines)
        yield record


def _check_all(work: _Work, local: Path, tally: _Tally) -> None:
    for item in _validated(work, local):
        if isinstance(item, Reject):
            tally.reject(item)
    if tally.rejected.count:
        raise BadPayloadError(
            f"{tally.rejected.count} rows are bad, the first in {_where(tally.shown[0])}; nothing "
            "was imported, since this import takes all rows or none (all_or_nothing)",
            system=work.job.folder.system,
            operation="import",
            record=work.claim.path,
            line=tally.shown[0].line,
        )


def _send_all(work: _Work, local: Path, tally: _Tally) -> None:
    serializer: TypeAdapter[list[Any]] = TypeAdapter(list[work.job.model])  # type: ignore[name-defined]
    done_before = work.job.ledger.sent_batches(work.claim)
    batch: list[Valid] = []
    ordinal = 0
    for item in _validated(work, local):
        if isinstance(item, Reject):
            tally.reject(item)
            continue
        batch.append(item)
        if len(batch) == work.claim.batch_size:
            _send_batch(work, serializer, ordinal, batch, done_before.get(ordinal), tally)
            batch = []
            ordinal += 1
    if batch:
        _send_batch(work, serializer, ordinal, batch, done_before.get(ordinal), tally)


def _send_batch(
    work: _Work,
    serializer: TypeAdapter[list[Any]],
    ordinal: int,
    batch: list[Valid],
    sent_digest: str | None,
    tally: _Tally,
) -> None:
    work.heartbeat()
    records = serializer.dump_json([valid.item for valid in batch])
    digest = hashlib.sha256(records).hexdigest()
    if digest == sent_digest:
        tally.imported += len(batch)
        return
    key = batch_key(work.claim, ordinal, digest)
    try:
        tally.sent += work.job.sink.send(records, count=len(batch), idempotency_key=key)
    except UpstreamRejectedError as exc:
        kept = _without_refused(batch, exc, tally)
        if kept:
            # Not remembered as sent: a resumed import asks again, to know these rejects again.
            _send_batch_again(work, serializer, ordinal, kept, tally)
        return
    work.job.ledger.record_batch(work.claim, ordinal, digest, len(batch))
    work.extended_s = time.monotonic()
    tally.imported += len(batch)


def _send_batch_again(
    work: _Work, serializer: TypeAdapter[list[Any]], ordinal: int, kept: list[Valid], tally: _Tally
) -> None:
    records = serializer.dump_json([valid.item for valid in kept])
    key = batch_key(work.claim, ordinal, hashlib.sha256(records).hexdigest())
    tally.sent += work.job.sink.send(records, count=len(kept), idempotency_key=key)
    tally.imported += len(kept)


def _without_refused(
    batch: list[Valid], error: UpstreamRejectedError, tally: _Tally
) -> list[Valid]:
    reasons: dict[int, list[str]] = {}
    fields: dict[int, str] = {}
    for detail in error.details:
        index = detail.get("index")
        if isinstance(index, int) and 0 <= index < len(batch):
            reasons.setdefault(index, []).append(str(detail.get("reason", "refused")))
            fields.setdefault(index, str(detail.get("field", "")))
    if not reasons:
        raise error
    for index in sorted(reasons):
        valid = batch[index]
        reason = f"refused by the application: {'; '.join(reasons[index])}"
        values = valid.item.model_dump(mode="json")
        tally.reject(Reject(valid.line, fields[index], reason, values, valid.page))
    return [valid for index, valid in enumerate(batch) if index not in reasons]


def _put_away(work: _Work, tally: _Tally) -> Outcome:
    job, claim, options = work.job, work.claim, work.job.put_away
    now = job.clock()
    target = None
    if options.on_success == "move":
        wanted = archive_path(options, claim.path, at=now, run_id=job.run_id)
        target = free_path(job.folder, wanted, options.on_collision)
    rejects_at = tally.rejected.store(
        job.folder, target or error_path(options, claim.path, at=now, run_id=job.run_id)
    )
    work.claim = job.ledger.mark_imported(
        claim,
        target_path=target,
        rows_imported=tally.imported,
        rows_rejected=tally.rejected.count,
    )
    outcome = _finish_putting_away(work)
    return replace(outcome, sent=tally.sent, rejects=tuple(tally.shown), rejects_at=rejects_at)


def _finish_putting_away(work: _Work) -> Outcome:
    job, claim = work.job, work.claim
    now_at: str | None = work.source_path
    if job.put_away.on_success == "delete":
        job.folder.delete(work.source_path)
        now_at = None
    elif claim.target_path is not None:
        _move_once(work, claim.target_path)
        now_at = claim.target_path
    if job.done_file:
        job.folder.delete(done_file_of(claim.path, job.done_file))
    if work.source_path != claim.path:  # mended in the error folder: clear what stood beside it
        job.folder.delete(f"{work.source_path}.err.json")
        job.folder.delete(f"{work.source_path}.rejects.csv")
    job.ledger.settle(claim)
    return Outcome(
        claim.path,
        "imported",
        now_at,
        rows_imported=claim.rows_imported,
        rows_rejected=claim.rows_rejected,
    )


def _fail(work: _Work, error: IntegrationError, tally: _Tally | None = None) -> Outcome:
    job, claim, options = work.job, work.claim, work.job.put_away
    target = work.source_path
    if work.source_path == claim.path:  # else it is in the error folder already
        wanted = error_path(options, claim.path, at=job.clock(), run_id=job.run_id)
        target = free_path(job.folder, wanted, "number")
    rejects_at = tally.rejected.store(job.folder, target) if tally else None
    note = {
        "file": claim.path,
        "place": job.folder.system,
        "failed_at": job.clock().isoformat(timespec="seconds"),
        "run_id": job.run_id,
        "what": error.message,
        "operation": error.operation,
        "line": getattr(error, "line", None),
        "rejected_rows": rejects_at,
        "how_to_mend": "Mend the file here and press Retry on the run; or drop the mended file "
        f"as {claim.path!r} again, and the next run takes it.",
    }
    write_error_note(job.folder, target, note)
    work.claim = job.ledger.mark_failing(claim, target_path=target, reason=error.message)
    outcome = _finish_failing(work, error.message)
    if tally is None:
        return outcome
    return replace(
        outcome,
        sent=tally.sent,
        rows_imported=tally.imported,
        rows_rejected=tally.rejected.count,
        rejects=tuple(tally.shown),
        rejects_at=rejects_at,
    )


def _finish_failing(work: _Work, reason: str) -> Outcome:
    target = work.claim.target_path or work.source_path
    _move_once(work, target)
    if work.job.done_file:
        work.job.folder.delete(done_file_of(work.claim.path, work.job.done_file))
    work.job.ledger.fail(work.claim)
    return Outcome(work.claim.path, "failed", target, reason=reason)


def _move_once(work: _Work, target: str) -> None:
    """Move unless an earlier attempt did; a new file of the same name is left alone."""
    folder = work.job.folder
    if work.source_path == target:
        return
    now = folder.stat(work.source_path)
    if now is None or now.version != work.claim.version:
        return
    overwrite = work.job.put_away.on_collision == "overwrite"
    folder.move(work.source_path, target, overwrite=overwrite)


def _where(reject: Reject) -> str:
    place = f"line {reject.line}" if reject.page is None else f"page {reject.page}"
    column = f", column {reject.column!r}" if reject.column else ""
    return f"{place}{column}: {reject.reason}"


def _count_lines(local: Path) -> int:
    with local.open("rb") as content:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: content.read(_CHUNK_BYTES), b""))
