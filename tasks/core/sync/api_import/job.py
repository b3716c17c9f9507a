"""What an import is told, and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks.core.connectors.http.client import ApiClient
from tasks.core.sync.api_import.cursors import Cursors, StreamBusy
from tasks.core.sync.api_import.source import IncrementalList, Range
from tasks.core.sync.batches.result import ImportResult, counted
from tasks.core.sync.batches.sender import ImportJob


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiImportJob(ImportJob):
    """One import: from where, as what, to where.

    Attributes:
        stream: Names the cursor.
        owner: The run; see `Cursors.lease`.
        listing: The list and how it is read.
        reshape: Makes a flat record of the source's, where columns of the validator do not do.
        start_at: Where the first import begins; None for everything there is.
        backfill: Import this range instead of what is new; the cursor stays.
    """

    stream: str
    owner: str
    cursors: Cursors
    source: ApiClient
    listing: IncrementalList
    reshape: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    start_at: datetime | None = None
    backfill: Range | None = None


@dataclass(slots=True, kw_only=True)
class ApiImportResult(ImportResult):
    """What became of an import from an API.

    Attributes:
        stream: Of which stream.
        pages: Read, in earlier attempts too.
        since_at: Where the window began; None for the beginning of everything.
        cursor: Where the cursor is now.
        is_resumed: It went on where an earlier attempt had stopped.
    """

    stream: str
    pages: int = 0
    since_at: datetime | None = None
    cursor: str | None = None
    is_resumed: bool = False

    def _done(self) -> str:
        if not self.counts.records and not self.counts.rejected:
            return "nothing new"
        return f"{counted(self.counts.records, 'record')} in {counted(self.pages, 'page')}"

    def _faults(self) -> str:
        rejected = f", {self.counts.rejected:,} rejected" if self.counts.rejected else ""
        return rejected + ("; an earlier attempt had begun it" if self.is_resumed else "")


def reason_of(busy: StreamBusy) -> str:
    """Why a stream is not imported now, in words."""
    return f"run {busy.owner} is at it, until {busy.until_at:%H:%M:%S} UTC at the latest"
