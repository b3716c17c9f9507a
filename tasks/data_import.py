"""Tasks of a scheduled data import: bring in what changed, show what became of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from prefect import State, task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import BaseModel
from sqlalchemy import Engine

from blocks.errors import IntegrationError, MisconfiguredError
from blocks.http_api import HttpApi
from tasks.api import is_transient, open_api
from tasks.core.connectors.http.client import ApiClient
from tasks.core.formats.records.validation import RecordValidator
from tasks.core.state.database import open_database
from tasks.core.sync.api_import.cursors import Cursors
from tasks.core.sync.api_import.importing import import_changes as import_window
from tasks.core.sync.api_import.job import ApiImportJob, ApiImportResult
from tasks.core.sync.api_import.source import IncrementalList, Range
from tasks.core.sync.batches.http_sink import HttpSink
from tasks.core.sync.batches.sink import RecordSink, Sent
from tasks.outcomes import counted, failed
from tasks.progress import work_in_thread
from tasks.rejects import dashed

__all__ = [
    "DataImport",
    "HttpSink",
    "IncrementalList",
    "Sent",
    "backfill_range",
    "import_and_show",
    "import_changes",
]


@dataclass(frozen=True, slots=True)
class DataImport:
    """Everything that describes one import: from where, as what, to where, and how.

    Attributes:
        stream: Names the cursor; imports with one name share it.
        source: The API.
        listing: The list in it, and how it is read.
        application: Takes the records, as `POST <resource>/batch`.
        resource: What the records are there, e.g. "orders".
        model: What a record must be.
        reshape: Makes the model's fields of a record of the source.
        columns: The source's field names to the model's, where they differ.
        start_at: Where the first import begins; None for everything there is.
        backfill: Import this range instead of what is new; the cursor stays.
        sink: Makes what takes the records in place of `POST <resource>/batch`, given the state
            database and the application.
    """

    stream: str
    source: HttpApi
    listing: IncrementalList
    application: HttpApi
    resource: str
    model: type[BaseModel]
    reshape: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    columns: dict[str, str] = field(default_factory=dict)
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
    outcome = await _import_with_retries(what, retries=retries, retry_delay_s=retry_delay_s)
    await _show(outcome)
    good, message = _summarize(outcome)
    return Completed(message=message) if good else failed(message)


async def _import_with_retries(
    what: DataImport, *, retries: int, retry_delay_s: float
) -> ApiImportResult:
    """Bring in what changed, again if what interrupted it may pass; a failure is an outcome."""
    with_retries = import_changes.with_options(retries=retries, retry_delay_seconds=retry_delay_s)
    state: State[Any] = await with_retries(what, return_state=True)  # type: ignore[misc]
    result = await state.aresult(raise_on_failure=False)
    if isinstance(result, ApiImportResult):
        return result
    reason = state.message or f"unexpected {type(result).__name__}; see the log of its task run"
    return ApiImportResult(what.stream, "failed", reason=reason)


async def _show(outcome: ApiImportResult) -> None:
    """Put a table of what was done, and one of all rejects, into the Prefect UI."""
    key = dashed(f"data-import-{outcome.stream}")
    counts = outcome.counts
    await acreate_table_artifact(
        key=key,
        description=f"Import of {outcome.stream}",
        table=[
            {
                "Result": outcome.result,
                "Records": counts.records,
                "Created": counts.created,
                "Updated": counts.updated,
                "Unchanged": counts.unchanged,
                "Known already": counts.known,
                "Rejected": counts.rejected,
                "From": _shown(outcome.since_at) or "the beginning",
                "Cursor": outcome.cursor or "",
                "Pages": outcome.pages,
                "Resumed": "yes" if outcome.is_resumed else "",
                "Why": outcome.reason or "",
            }
        ],
    )
    if outcome.rejects:
        await acreate_table_artifact(
            key=f"{key}-rejects",
            description=f"Records of {outcome.stream} not imported",
            table=[
                {
                    "Record": reject.id,
                    "Changed at": _shown(reject.changed_at),
                    "Field": reject.field,
                    "Why": reject.reason,
                }
                for reject in outcome.rejects
            ],
        )


def _summarize(outcome: ApiImportResult) -> tuple[bool, str]:
    """Whether the run is good, and what it did in one sentence."""
    if outcome.result == "failed":
        return False, outcome.reason or ""
    if outcome.result == "busy":
        return True, f"nothing to do: {outcome.reason}"
    counts = outcome.counts
    told = f"{counted(counts.records, 'record')} in {counted(outcome.pages, 'page')}"
    if not counts.records and not counts.rejected:
        told = "nothing new"
    if counts.rejected:
        told += f", {counts.rejected:,} rejected"
    if outcome.is_resumed:
        told += "; an earlier attempt had begun it"
    return True, f"{told}; {outcome.reason}" if outcome.reason else told


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
                validator=RecordValidator(what.model, columns=what.columns),
                reshape=what.reshape,
                start_at=what.start_at,
                backfill=what.backfill,
            )
            return import_window(job, progress=progress)
    finally:
        engine.dispose()


def _shown(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"
