"""What became of an import, whatever its source: counts, rejects, and one sentence about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

from blocks.errors import IntegrationError
from tasks.core.sync.batches.sink import Sent

REJECTS_SHOWN = 100
_REASONS_SHOWN = 5
_LIMIT = "that is the limit for one run"

Result = Literal[
    "done", "unfinished", "busy", "imported", "failed", "interrupted", "left", "duplicate"
]


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of records.

    Attributes:
        records: The application took.
        known: Read again and left out.
        rejected: Not taken; a file in a row or message that cannot be read counts as one.
        created: As the application says of those that it took; `updated` and `unchanged` too.
    """

    records: int = 0
    known: int = 0
    rejected: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0

    @classmethod
    def of(cls, sent: Sent, *, records: int, rejected: int = 0) -> Counts:
        """The counts of a batch that was sent."""
        return cls(records, 0, rejected, sent.created, sent.updated, sent.unchanged)

    @property
    def read(self) -> int:
        """How many records were read."""
        return self.records + self.known + self.rejected

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.records + other.records,
            self.known + other.known,
            self.rejected + other.rejected,
            self.created + other.created,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
        )


class RejectedRecord(NamedTuple):
    """Why a record was not taken, without its values.

    Attributes:
        id: Its identity at the source, the row's key, the message's id or the file's path; "" if
            it has none.
        field: The field at fault, as the source names it; "" for the record as a whole.
        reason: What is wrong.
        line: Within a file; 0 otherwise.
        page: Of formats that have pages.
        changed_at: As the source says, if it does.
    """

    id: str
    field: str
    reason: str
    line: int = 0
    page: int | None = None
    changed_at: datetime | None = None


@dataclass(slots=True)
class BatchResult:
    """What became of rows or messages that were taken together.

    Attributes:
        counts: Of their records.
        bad: By position, what is wrong with one of them.
        rejects: The first hundred records that were not taken.
    """

    counts: Counts = field(default_factory=Counts)
    bad: dict[int, str] = field(default_factory=dict)
    rejects: list[RejectedRecord] = field(default_factory=list)

    def reject(self, reject: RejectedRecord) -> None:
        """Keep a reject to be shown."""
        keep_rejects(self.rejects, [reject])


@dataclass(slots=True, kw_only=True)
class ImportResult:
    """What became of one import.

    Attributes:
        unit: What the source holds: "row", "message", "file".
        bad_word: What is said of those that were not taken.
        result: How it ended. "done"; "unfinished": more waits for the next run; "busy": another
            run is at it; "failed". Of a file also "imported"; "failed": bad, in the error folder;
            "interrupted": goes on in the next run or on retry; "left": not ready or not ours;
            "duplicate": was imported before.
        imported: How many units went in wholly.
        bad: How many did not, or not wholly.
        reasons: Why the first of those did not.
        holds_files: Units hold files of records, so that records are counted, too.
        counts: What became of the records.
        rejects: The first hundred records that were not taken.
        reason: What stopped it.
        error: What interrupted it.
    """

    unit: str = "record"
    bad_word: str = "bad"
    result: Result = "unfinished"
    imported: int = 0
    bad: int = 0
    reasons: list[str] = field(default_factory=list)
    holds_files: bool = False
    counts: Counts = field(default_factory=Counts)
    rejects: list[RejectedRecord] = field(default_factory=list)
    reason: str | None = None
    error: IntegrationError | None = None

    @property
    def units(self) -> int:
        """How many units were dealt with."""
        return self.imported + self.bad

    @property
    def is_all(self) -> bool:
        """Nothing is left for another run."""
        return self.result == "done"

    @property
    def is_good(self) -> bool:
        """Nothing of it needs an operator."""
        return self.result not in ("failed", "interrupted") and not self.bad

    def add_units(self, count: int, reasons: Sequence[str]) -> None:
        """Count units; those that are bad have a reason each."""
        self.imported += count - len(reasons)
        self.bad += len(reasons)
        self.reasons += reasons[: _REASONS_SHOWN - len(self.reasons)]

    def add_records(self, batch: BatchResult) -> None:
        """Count the records of a batch."""
        self.counts += batch.counts
        keep_rejects(self.rejects, batch.rejects)

    def summary(self) -> str:
        """What the import did, in one sentence for the operator."""
        if self.result == "failed":
            return self.reason or ""
        if self.result == "busy":
            return f"nothing to do: {self.reason}"
        reason = self.reason or (_LIMIT if self.result == "unfinished" else None)
        return "; ".join(filter(None, (self._done() + self._faults(), reason)))

    def _done(self) -> str:
        records = f", {counted(self.counts.records, 'record')}" if self.holds_files else ""
        return f"{counted(self.imported, self.unit)} imported{records}"

    def _faults(self) -> str:
        return f", {self.bad} {self.bad_word}: {self._named_reasons()}" if self.bad else ""

    def _named_reasons(self) -> str:
        more = self.bad - len(self.reasons)
        return "; ".join([*self.reasons, *([f"and {more} more"] if more > 0 else [])])


def keep_rejects(kept: list[RejectedRecord], more: Sequence[RejectedRecord]) -> None:
    """Add rejects to those that are shown, until there are a hundred."""
    kept += more[: max(REJECTS_SHOWN - len(kept), 0)]


def counted(count: int, noun: str) -> str:
    """A number of things as an operator reads it, e.g. "1 row" or "1,200 rows"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
