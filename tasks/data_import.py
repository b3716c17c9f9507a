"""Tasks of a scheduled data import: bring in what changed, show what became of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from sqlalchemy import Engine

from blocks.errors import IntegrationError, MisconfiguredError
from blocks.http_api import HttpApi
from tasks.api import is_transient, open_api
from tasks.core.connectors.http.client import ApiClient
from tasks.core.state.database import open_database
from tasks.core.sync.api_import.cursors import Cursors
from tasks.core.sync.api_import.importing import import_changes as import_window
from tasks.core.sync.api_import.job import ApiImportJob, ApiImportResult
from tasks.core.sync.api_import.source import IncrementalList, Range
from tasks.core.sync.batches.http_sink import HttpSink
from tasks.core.sync.batches.sink import RecordSink, Sent
from tasks.import_results import ended, run_import, show_rejects, show_table
from tasks.outcomes import failed
from tasks.progress import work_in_thread
from tasks.record_import import RecordImport

__all__ = [
    "DataImport",
    "HttpSink",
    "IncrementalList",
    "Sent",
    "backfill_range",
    "import_and_show",
    "import_changes",
]

_REJECTS = {"Record": "id", "Changed at": "changed_at", "Field": "field", "Why": "reason"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataImport(RecordImport):
    """Everything that describes one import: from where, as what, to where, and how.

    Attributes:
        stream: Names the cursor; imports with one name share it.
        source: The API.
        listing: The list in it, and how it is read.
        reshape: Makes the model's fields of a record of the source.
        start_at: Where the first import begins; None for everything there is.
        backfill: Import this range instead of what is new; the cursor stays.
        sink: Makes what takes the records in place of `POST <resource>/batch`, given the state
            database and the application.
    """

    stream: str
    source: HttpApi
    listing: IncrementalList
    reshape: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    start_at: datetime | None = None
    backfill: Range | None = None
    sink: Callable[[Engine, ApiClient], RecordSink] | None = None


def backfill_range(from_at: datetime | None, until_at: datetime | None) -> Range | None:
    """The range that two parameters of a flow name; None if neither is given.

    Raises:
        MisconfiguredError: Only one is given, or they are in the wrong order.
    """
    if from_at is None and until_at is None:
        return None
    if from_at is None or until_at is None or from_at >= until_at:
        raise MisconfiguredError(
            "a backfill needs its beginning and its end, and the beginning comes first",
            system="parameters",
            operation="backfill",
        )
    return Range(from_at, until_at)


@task(
    task_run_name="import {what.stream}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=is_transient,
)
async def import_changes(what: DataImport) -> ApiImportResult | State[ApiImportResult]:
    """Bring in what changed since the last import, or the backfill.

    Whatever ends it, the next attempt goes on at the page where this one stopped: a retry of the
    task, of the run, or the next run. An error ends this task run as Failed, with its message.
    """
    try:
        return await work_in_thread(
            lambda progress: _import(what, progress), f"Import of {what.stream}"
        )
    except IntegrationError as exc:
        return failed(str(exc), data=exc)


async def import_and_show(what: DataImport, *, retries: int, retry_delay_s: float) -> State[Any]:
    """Bring in what changed, and show what was done and what was rejected.

    Args:
        what: Everything that describes the import.
        retries: How often it is tried again while what interrupted it may pass.
        retry_delay_s: Seconds before that.

    Returns:
        The state for the flow to return.
    """
    imported = await run_import(
        import_changes,
        what,
        partial(ApiImportResult, stream=what.stream),
        retries=retries,
        retry_delay_s=retry_delay_s,
    )
    await _show(imported)
    return ended(imported)


async def _show(imported: ApiImportResult) -> None:
    """Put a table of what was done, and one of all rejects, into the Prefect UI."""
    key = f"data-import-{imported.stream}"
    counts = imported.counts
    row = {
        "Result": imported.result,
        "Records": counts.records,
        "Created": counts.created,
        "Updated": counts.updated,
        "Unchanged": counts.unchanged,
        "Known already": counts.known,
        "Rejected": counts.rejected,
        "From": imported.since_at or "the beginning",
        "Cursor": imported.cursor,
        "Pages": imported.pages,
        "Resumed": "yes" if imported.is_resumed else "",
        "Why": imported.reason,
    }
    await show_table(key, f"Import of {imported.stream}", [row])
    description = f"Records of {imported.stream} not imported"
    await show_rejects(f"{key}-rejects", description, imported.rejects, _REJECTS)


def _import(what: DataImport, progress: Callable[[float], None]) -> ApiImportResult:
    engine = open_database()
    try:
        with open_api(what.source) as source, open_api(what.application) as application:
            job = ApiImportJob(
                stream=what.stream,
                owner=str(flow_run.id or f"process {os.getpid()}"),
                cursors=Cursors(engine),
                source=source,
                listing=what.listing,
                sink=what.sink(engine, application)
                if what.sink
                else HttpSink(application, what.resource),
                model=what.model,
                validator=what.validator(),
                reshape=what.reshape,
                start_at=what.start_at,
                backfill=what.backfill,
            )
            return import_window(job, progress=progress)
    finally:
        engine.dispose()
