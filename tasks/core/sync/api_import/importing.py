"""Imports what changed since the cursor: read, leave out what is known, check, send, move on.

Safe to kill anywhere and to call again. Each page is noted before its records are sent, so that
the next attempt sends the same batch under the same key and goes on at the next page; the cursor
moves when everything has arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel

from blocks.errors import (
    BadPayloadError,
    IntegrationError,
    MisconfiguredError,
    UpstreamRejectedError,
)
from tasks.core.formats.records.record import Record, Reject
from tasks.core.formats.records.validation import Valid
from tasks.core.sync.api_import.cursors import StreamBusy, StreamLease
from tasks.core.sync.api_import.job import ApiImportJob, ApiImportResult, reason_of
from tasks.core.sync.api_import.pages import Step, walk
from tasks.core.sync.api_import.windows import (
    Arrival,
    Batch,
    PageTaken,
    TakenRecord,
    Window,
    Windows,
)
from tasks.core.sync.batches.result import REJECTS_SHOWN, RejectedRecord, Result
from tasks.core.sync.batches.sender import digest_of
from tasks.core.sync.batches.sink import Refused
from tasks.core.threads import check_cancelled

# The answers of APIs that no longer know a position: cursors are often good for a day or so.
_POSITION_GONE = (400, 404, 410, 422)
# So many bad records and no good one in a page are not the records' fault.
_ALL_BAD_FROM = 20
_OPERATION = "import"
_ONCE_MORE = "once more"  # a position that is never asked for


def import_changes(
    job: ApiImportJob,
    *,
    progress: Callable[[float], None] = lambda _fraction: None,
) -> ApiImportResult:
    """Import what is new, or the job's backfill.

    Args:
        job: How.
        progress: Told the fraction done, 0 to 1, by the time that the window covers.

    Raises:
        IntegrationError: It cannot go on; the next call goes on where this one stopped.
        asyncio.CancelledError: The run is cancelled; likewise.
    """
    lease = job.cursors.lease(job.stream, owner=job.owner)
    if isinstance(lease, StreamBusy):
        return ApiImportResult(stream=job.stream, result="busy", reason=reason_of(lease))
    try:
        # SQLite writes its log back whenever the last connection closes: one stays open.
        with job.cursors.engine.connect():
            return _Attempt(job, lease, progress).run()
    finally:
        job.cursors.release(lease)


class _Attempt:
    """One attempt at one window."""

    def __init__(
        self, job: ApiImportJob, lease: StreamLease, progress: Callable[[float], None]
    ) -> None:
        self._job = job
        self._lease = lease
        self._progress = progress
        self._windows = Windows(job.cursors)
        self._sender = job.sender()
        self._overlap = timedelta(seconds=job.listing.overlap_s)
        self._cursor_at = _instant(lease)
        self._window = self._open()
        self._arrival: Arrival | None = None  # of the batch in hand, not stored yet
        self._read_at: dict[int, datetime] = {}  # the change read last, by chain
        self._page_before: dict[str, str] = {}  # identity to digest
        self._steps_of_walk = self._fresh_of_walk = 0
        # What changed later than this was not taken by earlier walks.
        self._taken_until_at: datetime | None = None

    def run(self) -> ApiImportResult:
        """Read to the end, or as far as one run goes."""
        try:
            self._send_batch_in_hand()
            if self._read_pages():
                return self._finish()
        except (IntegrationError, asyncio.CancelledError):
            self._settle()
            raise
        self._settle()
        return self._outcome("unfinished", "more waits; the next run goes on there")

    def _open(self) -> Window:
        backfill = self._job.backfill
        if backfill is not None:
            return self._windows.open(
                self._lease,
                name=backfill.name,
                since_at=backfill.from_at,
                until_at=backfill.until_at,
            )
        since_at = self._job.start_at
        if self._cursor_at is not None:
            since_at = self._cursor_at - self._overlap
        return self._windows.open(self._lease, since_at=since_at)

    def _read_pages(self) -> bool:
        """Whether the window was read to its end."""
        count = 0
        if self._shifts and self._window.position is not None:
            self._rewind()
        while not self._window.is_read:
            with closing(self._steps()) as steps:
                for step in steps:
                    taken = self._take(step)
                    before = self._arrival or Arrival()
                    self._window = self._windows.store_page(
                        self._lease, self._window, taken, before
                    )
                    self._arrival = None
                    self._send_batch_in_hand()
                    self._tell_progress(step)
                    count += 1
                    if self._window.is_read:
                        return True
                    check_cancelled()
                    if count == self._job.listing.max_pages_a_run and not self._shifts:
                        return False
            if count >= self._job.listing.max_pages_a_run:
                return False  # a list that shifts is read to its end, else no run ever came there
            self._rewind()  # pages have shifted, perhaps: once more
        return True

    def _steps(self) -> Generator[Step]:
        """The pages from the window's position on; from further back if that is gone."""
        if self._window.position is not None:
            with closing(self._walk()) as steps:
                try:
                    first = next(steps)
                except UpstreamRejectedError as exc:
                    if exc.status not in _POSITION_GONE:
                        raise
                    self._rewind()
                else:
                    yield first
                    yield from steps
                    return
        with closing(self._walk()) as steps:
            yield from steps

    def _walk(self) -> Generator[Step]:
        self._read_at.clear()
        self._page_before.clear()
        self._steps_of_walk = self._fresh_of_walk = 0
        self._taken_until_at = self._windows.newest_taken_at(self._job.stream)
        return walk(self._job.source, self._job.listing, self._window)

    @property
    def _shifts(self) -> bool:
        return self._job.listing.shifts

    @property
    def _is_one_chain(self) -> bool:
        """What was read is all there is before the change read last."""
        is_sliced = isinstance(self._window.position, dict)
        return self._job.listing.is_ordered and not self._shifts and not is_sliced

    def _rewind(self) -> None:
        since_at = self._window.since_at
        newest_at = self._capped(self._window.newest_at)
        if self._is_one_chain and newest_at is not None:
            back = newest_at if self._job.backfill else newest_at - self._overlap
            since_at = back if since_at is None else max(since_at, back)
        self._window = self._windows.rewind(self._lease, self._window, since_at=since_at)

    def _take(self, step: Step) -> PageTaken:
        """Sort a page's records: known, outside the window, good, bad."""
        rejects: list[RejectedRecord] = []
        found: list[tuple[TakenRecord, Mapping[str, Any]]] = []
        for raw in step.records:
            identified = self._job.listing.identify(raw)
            if isinstance(identified, RejectedRecord):
                rejects.append(identified)
            else:
                self._check_order(identified, step.chain)
                found.append((identified, raw))
        fresh = self._fresh(found)
        self._page_before = {record.id: record.digest for record, _ in found}
        good, bad = self._validated(fresh)
        if len(bad) >= _ALL_BAD_FROM and not good:
            raise BadPayloadError(
                f"none of {len(bad)} records is good, the first for {bad[0].field!r}: "
                f"{bad[0].reason}; correct model, columns or mapping, and press Retry",
                system=self._job.source.system,
                operation=_OPERATION,
                record=self._job.stream,
            )
        newest_at = max((record.changed_at for record, _ in found), default=self._window.newest_at)
        if newest_at is not None and self._window.newest_at is not None:
            newest_at = max(newest_at, self._window.newest_at)
        keeps = self._job.backfill is None
        self._steps_of_walk += 1
        self._fresh_of_walk += len(fresh)
        return PageTaken(
            next_position=self._going_on(step, newest_at),
            newest_at=newest_at,
            batch=self._batch(good),
            taken=[record for record, _ in fresh] if keeps else [],
            rejects=[*rejects, *bad],
            known=len(found) - len(fresh),
            forget_before_at=self._forget_before(newest_at) if keeps else None,
        )

    def _going_on(self, step: Step, newest_at: datetime | None) -> Any:
        """Where the window goes on behind a page."""
        position, until_at = step.next_position, self._window.until_at
        if isinstance(position, dict):
            return position
        if position is None:
            seen_all = self._steps_of_walk == 1 or not self._fresh_of_walk
            may_lack = self._shifts and self._job.backfill is None and not seen_all
            return _ONCE_MORE if may_lack else None
        is_over = until_at is not None and newest_at is not None and newest_at >= until_at
        return None if is_over and self._is_one_chain else position

    def _fresh(
        self, found: list[tuple[TakenRecord, Mapping[str, Any]]]
    ) -> list[tuple[TakenRecord, Mapping[str, Any]]]:
        """Those records that belong to the window and were not taken before."""
        since_at, until_at = self._window.since_at, self._window.until_at
        known = self._known([record for record, _ in found])
        fresh = []
        for record, raw in found:
            if since_at is not None and record.changed_at < since_at:
                continue
            if until_at is not None and record.changed_at >= until_at:
                continue
            if known.get(record.id) != record.digest:
                known[record.id] = record.digest
                fresh.append((record, raw))
        return fresh

    def _known(self, records: list[TakenRecord]) -> dict[str, str]:
        """Identity to digest of those that were taken before."""
        if self._job.backfill is not None:  # takes again what imports have taken
            return dict(self._page_before) if self._shifts else {}
        until_at = self._taken_until_at
        if self._shifts:  # a page may show again what this walk has just taken
            asked = [record.id for record in records]
        elif until_at is not None:
            asked = [record.id for record in records if record.changed_at <= until_at]
        else:
            asked = []
        return dict(self._windows.known(self._job.stream, asked)) if asked else {}

    def _check_order(self, record: TakenRecord, chain: int) -> None:
        if not self._job.listing.is_ordered:
            return
        if record.changed_at < self._read_at.get(chain, record.changed_at):
            raise BadPayloadError(
                f"the list is not in the order of {self._job.listing.changed_at_path}; ask the "
                "API to sort by it, or set is_ordered to false",
                system=self._job.source.system,
                operation=_OPERATION,
                record=self._job.stream,
            )
        self._read_at[chain] = record.changed_at

    def _validated(
        self, fresh: list[tuple[TakenRecord, Mapping[str, Any]]]
    ) -> tuple[list[tuple[str, BaseModel]], list[RejectedRecord]]:
        good: list[tuple[str, BaseModel]] = []
        bad: list[RejectedRecord] = []
        for item in self._job.validator.validate(self._reshaped(fresh)):
            record = fresh[item.line][0]
            if isinstance(item, Valid):
                good.append((record.id, item.item))
            else:
                bad.append(
                    RejectedRecord(
                        record.id, item.column, item.reason, changed_at=record.changed_at
                    )
                )
        return good, bad

    def _reshaped(
        self, fresh: list[tuple[TakenRecord, Mapping[str, Any]]]
    ) -> Iterator[Record | Reject]:
        reshape = self._job.reshape
        for line, (_, raw) in enumerate(fresh):
            if reshape is None:
                yield Record(line, raw)
                continue
            try:
                values = reshape(raw)
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as exc:
                yield Reject(line, "", f"cannot be mapped ({type(exc).__name__})", {})
            else:
                yield Record(line, values)

    def _batch(self, good: list[tuple[str, BaseModel]]) -> Batch | None:
        if not good:
            return None
        records = self._sender.encode([item for _, item in good])
        key = _batch_key(f"{self._window.id}-{self._window.pages}", digest_of(records))
        return Batch(key, records, tuple(id_ for id_, _ in good))

    def _send_batch_in_hand(self) -> None:
        batch = self._window.batch
        if batch is None:
            return
        try:
            self._arrival = self._sent(batch)
        except UpstreamRejectedError:
            # It would refuse the same again: the page is read anew, when mapping or model may be
            # mended.
            self._window = self._windows.take_back(self._lease, self._window)
            raise

    def _sent(self, batch: Batch) -> Arrival:
        """Send a batch, without those records that the application refuses."""
        rejects: list[RejectedRecord] = []
        prefix = batch.key.rpartition("-")[0]

        def refuse(refused: Refused) -> None:
            for index, (field, reason) in refused.items():
                rejects.append(RejectedRecord(batch.ids[index], field, reason))
            self._job.cursors.extend(self._lease)

        counts = self._sender.send(
            batch.records,
            count=len(batch.ids),
            key_of=lambda digest: _batch_key(prefix, digest),
            refuse=refuse,
        )
        return Arrival(counts, tuple(rejects))

    def _settle(self) -> None:
        """Note what has arrived, so that the next attempt does not send it again."""
        if self._arrival is not None:
            self._window = self._windows.settle_batch(self._lease, self._window, self._arrival)
            self._arrival = None

    def _finish(self) -> ApiImportResult:
        cursor_at = None
        newest_at = self._capped(self._window.newest_at)
        if self._job.backfill is None and newest_at is not None:
            cursor_at = newest_at if self._cursor_at is None else max(newest_at, self._cursor_at)
        self._window = self._windows.finish(
            self._lease,
            self._window,
            self._arrival or Arrival(),
            cursor=None if cursor_at is None else _written(cursor_at),
            forget_before_at=None if cursor_at is None else cursor_at - self._overlap,
        )
        self._arrival = None
        if cursor_at is not None:
            self._lease = replace(self._lease, value=_written(cursor_at))
        self._progress(1.0)
        return self._outcome("done", None)

    def _forget_before(self, newest_at: datetime | None) -> datetime | None:
        """What the next window does not read again; pages that shift are read again themselves."""
        at = self._capped(newest_at)
        return None if at is None or self._shifts else at - self._overlap

    def _capped(self, newest_at: datetime | None) -> datetime | None:
        """A record dated into the future must not carry the cursor there."""
        return None if newest_at is None else min(newest_at, self._window.opened_at)

    def _tell_progress(self, step: Step) -> None:
        if step.fraction is not None:
            self._progress(step.fraction)
            return
        window = self._window
        until_at = min(window.until_at or window.opened_at, window.opened_at)
        if window.since_at is None or window.newest_at is None or until_at <= window.since_at:
            return
        fraction = (window.newest_at - window.since_at) / (until_at - window.since_at)
        self._progress(min(max(fraction, 0.0), 0.99))

    def _outcome(self, result: Result, reason: str | None) -> ApiImportResult:
        window = self._window
        return ApiImportResult(
            stream=self._job.stream,
            result=result,
            pages=window.pages,
            counts=window.counts,
            since_at=window.since_at,
            cursor=self._lease.value,
            is_resumed=window.is_resumed,
            rejects=self._windows.rejects(window, limit=REJECTS_SHOWN),
            reason=reason,
        )


def _batch_key(prefix: str, digest: str) -> str:
    return f"{prefix}-{digest[:16]}"


def _written(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _instant(lease: StreamLease) -> datetime | None:
    if lease.value is None:
        return None
    try:
        instant = datetime.fromisoformat(lease.value)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise MisconfiguredError(
            "its cursor is no instant with a zone; set it with the deployment set-import-cursor",
            system="state database",
            operation=_OPERATION,
            record=lease.stream,
        )
    return instant
