"""What an import is told, and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from tasks.core.connectors.http.client import ApiClient
from tasks.core.formats.records.validation import RecordValidator
from tasks.core.sync.api_import.cursors import Cursors
from tasks.core.sync.api_import.source import IncrementalList, Range
from tasks.core.sync.api_import.windows import Counts, RejectedRecord
from tasks.core.sync.batches.sink import RecordSink


@dataclass(frozen=True, slots=True)
class ApiImportJob:
    """One import: from where, as what, to where.

    Attributes:
        stream: Names the cursor.
        owner: The run; see `Cursors.lease`.
        listing: The list and how it is read.
        model: What a record must be; its JSON form is what the application gets.
        validator: Checks records against `model`.
        reshape: Makes a flat record of the source's, where columns of the validator do not do.
        start_at: Where the first import begins; None for everything there is.
        backfill: Import this range instead of what is new; the cursor stays.
    """

    stream: str
    owner: str
    cursors: Cursors
    source: ApiClient
    listing: IncrementalList
    sink: RecordSink
    model: type[BaseModel]
    validator: RecordValidator[BaseModel]
    reshape: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    start_at: datetime | None = None
    backfill: Range | None = None


@dataclass(frozen=True, slots=True)
class ApiImportResult:
    """What became of an import.

    Attributes:
        stream: Of which stream.
        result: "done"; "unfinished": more waits for the next run; "busy": another run is at it;
            "failed".
        pages: Read, in earlier attempts too.
        counts: What became of the records.
        since_at: Where the window began; None for the beginning of everything.
        cursor: Where the cursor is now.
        is_resumed: It went on where an earlier attempt had stopped.
        rejects: The first hundred.
        reason: Why it is not done.
    """

    stream: str
    result: Literal["done", "unfinished", "busy", "failed"]
    pages: int = 0
    counts: Counts = field(default_factory=Counts)
    since_at: datetime | None = None
    cursor: str | None = None
    is_resumed: bool = False
    rejects: tuple[RejectedRecord, ...] = ()
    reason: str | None = None
