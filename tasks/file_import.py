"""Tasks of a scheduled file import: list what is ready, import each file, show what happened."""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from prefect import State, task
from prefect.artifacts import acreate_table_artifact
from prefect.blocks.core import Block
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.runtime import flow_run
from pydantic import BaseModel
from sqlalchemy import Engine

from blocks.errors import IntegrationError, TransientError
from blocks.http_api import HttpApi
from tasks.api import open_api
from tasks.core.connectors.folders.protocol import RemoteFile, RemoteFolder
from tasks.core.formats.records.formats import FileFormat
from tasks.core.formats.records.validation import RecordValidator
from tasks.core.state.database import open_database
from tasks.core.sync.batches.http_sink import HttpSink
from tasks.core.sync.file_import.after_import import AfterImport
from tasks.core.sync.file_import.importing import import_file, settle_duplicate
from tasks.core.sync.file_import.job import FileImportJob, FileImportResult
from tasks.core.sync.file_import.ledger import FileLedger
from tasks.core.sync.file_import.selection import FileSelection, WaitingFile, find_ready_files
from tasks.core.sync.file_import.work_list import WorkItem, plan_work
from tasks.core.threads import in_thread
from tasks.folders import open_folder
from tasks.outcomes import counted, failed
from tasks.progress import work_in_thread

__all__ = [
    "AfterImport",
    "FileFormat",
    "FileImport",
    "FileSelection",
    "FilesFound",
    "import_files",
    "import_one_file",
    "list_ready_files",
    "show_outcomes",
    "summarize",
]


_COLLECT_AFTER = (10_000, 20, 20)


@dataclass(frozen=True, slots=True)
class FileImport:
    """Everything that describes one import: from where, as what, to where, and how.

    Attributes:
        place: A folder block.
        folder: The folder in it.
        application: Takes the records, as `POST <resource>/batch`.
        resource: What the records are there, e.g. "inventory".
        model: What a record must be.
        columns: The file's column names to the model's field names.
        file_retries: How often a file that was interrupted is tried again within a run.
    """

    place: Block
    folder: str
    application: HttpApi
    resource: str
    model: type[BaseModel]
    file_format: FileFormat | None = None
    columns: dict[str, str] = field(default_factory=dict)
    decimal_comma: bool = False
    empty_texts: tuple[str, ...] = ("",)
    selection: FileSelection = field(default_factory=FileSelection)
    after_import: AfterImport = field(default_factory=AfterImport)
    batch_size: int = 500
    all_or_nothing: bool = False
    files_at_once: int = 1
    file_retries: int = 2
    file_retry_delay_s: float = 10


@dataclass(frozen=True, slots=True)
class FilesFound:
    """What a listing gave.

    Attributes:
        work: To import, in order.
        waiting: Left for the next run, and why.
        duplicates: Imported before in this version.
    """

    work: list[WorkItem]
    waiting: list[WaitingFile]
    duplicates: list[RemoteFile]


@task(task_run_name="list ready files in {what.folder}", cache_policy=NO_CACHE)
async def list_ready_files(what: FileImport) -> FilesFound:
    """List the files that are ready, and what an earlier attempt of this run left unfinished.

    Raises:
        IntegrationError: The place cannot be listed.
    """
    engine = await in_thread(open_database)
    return await in_thread(_find_files, what, engine)


async def import_files(what: FileImport, found: FilesFound) -> list[FileImportResult]:
    """Import each file as a task run of its own, some at once.

    When the application or the place cannot be reached, the files not yet begun are left for the
    next run.

    Returns:
        One outcome a file, in the order in which they ended.
    """
    # A batch is thousands of live objects, none of them in a cycle: collecting as often as Python
    # does by default takes as long as the whole rest of the import. A flow run is a process.
    gc.set_threshold(*_COLLECT_AFTER)
    engine = await in_thread(open_database)
    queue = deque(found.work)
    outcomes: list[FileImportResult] = []

    async def work_off(connection: _Connection) -> None:
        try:
            while queue:
                outcome = await _import_in_task_run(connection, queue.popleft())
                outcomes.append(outcome)
                if _stops_the_others(outcome, what.application):
                    outcomes.extend(_not_tried(item, outcome) for item in queue)
                    queue.clear()
        finally:
            await connection.close()

    connections = [_Connection(what, engine) for _ in range(max(1, what.files_at_once))]
    outcomes += [await _settle(connections[0], duplicate) for duplicate in found.duplicates]
    await asyncio.gather(*(work_off(connection) for connection in connections))
    return outcomes


@task(task_run_name="import {item.name}", cache_policy=NO_CACHE, persist_result=False)
async def import_one_file(
    connection: _Connection, item: WorkItem
) -> FileImportResult | State[FileImportResult]:
    """Import one file; a file that failed or was interrupted ends this task run as Failed."""
    job = await connection.job()
    outcome = await work_in_thread(
        lambda progress: import_file(
            job,
            item.file,
            original=item.original,
            again=item.again,
            progress=progress,
        ),
        f"Import of {item.name}",
    )
    if outcome.result == "interrupted":
        await connection.close()  # whatever is wrong, the next attempt begins afresh
    if outcome.result in ("failed", "interrupted"):
        return failed(f"{outcome.path}: {outcome.reason}", data=outcome)
    return outcome


async def show_outcomes(
    source: str, found: FilesFound, outcomes: Sequence[FileImportResult]
) -> None:
    """Put a table of all files, and one of all rejected rows, into the Prefect UI."""
    key = f"file-import-{source.partition('/')[2]}"
    rows = [_outcome_row(outcome) for outcome in outcomes]
    rows += [{"File": w.file.path, "Result": "waiting", "Why": w.reason} for w in found.waiting]
    if rows:
        await acreate_table_artifact(
            table=rows, key=key, description=f"Files of {source} and what became of them"
        )
    rejects = [
        {
            "File": outcome.path,
            "Page": reject.page or "",
            "Line": reject.line,
            "Column": reject.column,
            "Why": reject.reason,
            "All rejects": outcome.rejects_at,
        }
        for outcome in outcomes
        for reject in outcome.rejects
    ]
    if rejects:
        await acreate_table_artifact(
            table=rejects, key=f"{key}-rejects", description=f"Rows of {source} not imported"
        )


def summarize(outcomes: Sequence[FileImportResult]) -> tuple[bool, str]:
    """Whether the run is good, and what it did in one sentence."""
    if not outcomes:
        return True, "no files"
    imported = [o for o in outcomes if o.result == "imported"]
    rows = sum(o.rows_imported for o in imported)
    rejected = sum(o.rows_rejected for o in imported)
    done = f"{len(imported)} of {len(outcomes)} files imported, {counted(rows, 'row')}"
    if rejected:
        done += f", {counted(rejected, 'row')} rejected"
    bad = [o for o in outcomes if o.result in ("failed", "interrupted")]
    told = "; ".join(f"{o.path}: {o.reason}" for o in bad[:5])
    if len(bad) > 5:
        told += f"; and {len(bad) - 5} more"
    return not bad, f"{done}; {told}" if bad else done


async def _settle(connection: _Connection, duplicate: RemoteFile) -> FileImportResult:
    try:
        job = await connection.job()
    except IntegrationError as exc:
        path = duplicate.path
        return FileImportResult(path, "interrupted", path, reason=str(exc), error=exc)
    return await in_thread(settle_duplicate, job, duplicate)


async def _import_in_task_run(connection: _Connection, item: WorkItem) -> FileImportResult:
    what = connection.what
    with_retries = import_one_file.with_options(
        retries=what.file_retries,
        retry_delay_seconds=what.file_retry_delay_s,
        retry_condition_fn=_may_pass,
    )
    state: State[Any] = await with_retries(connection, item, return_state=True)  # type: ignore[misc]
    result = await state.aresult(raise_on_failure=False)
    if isinstance(result, FileImportResult):
        return result
    path = (item.original or item.file).path
    reason = f"unexpected {type(result).__name__}; the log of its task run has the traceback"
    return FileImportResult(path, "failed", path, reason=reason)


def _may_pass(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, FileImportResult) and isinstance(state.data.error, TransientError)


def _stops_the_others(outcome: FileImportResult, application: HttpApi) -> bool:
    """Whether the next file would meet the same wall: a place or application out of reach."""
    error = outcome.error
    return isinstance(error, TransientError) or (
        error is not None and error.system == application.system
    )


def _not_tried(item: WorkItem, interrupted: FileImportResult) -> FileImportResult:
    path = (item.original or item.file).path
    return FileImportResult(
        path, "left", path, reason=f"not tried, since {interrupted.path} could not go on"
    )


def _find_files(what: FileImport, engine: Engine) -> FilesFound:
    with open_folder(what.place) as folder:
        ledger = _ledger(what, engine, folder)
        listing = find_ready_files(
            folder,
            what.folder,
            what.selection,
            finished=ledger.finished,
            ignore_folders=(what.after_import.archive_folder, what.after_import.error_folder),
        )
        work = plan_work(folder, ledger.unfinished(), listing.ready)
    if what.after_import.on_duplicate == "import":
        work += [WorkItem(file, again=True) for file in listing.duplicates]
        return FilesFound(work, listing.waiting, [])
    duplicates = [] if what.after_import.on_success == "keep" else listing.duplicates
    return FilesFound(work, listing.waiting, duplicates)


def _ledger(what: FileImport, engine: Engine, folder: RemoteFolder) -> FileLedger:
    return FileLedger(engine, importer=what.resource, place=folder.system, owner=_run_id())


def _run_id() -> str:
    return str(flow_run.id or "by hand")


def _outcome_row(outcome: FileImportResult) -> dict[str, Any]:
    return {
        "File": outcome.path,
        "Result": outcome.result,
        "Rows imported": outcome.rows_imported,
        "Created": outcome.sent.created,
        "Updated": outcome.sent.updated,
        "Unchanged": outcome.sent.unchanged,
        "Rows rejected": outcome.rows_rejected,
        "Why": outcome.reason or "",
        "Now at": outcome.now_at or "",
        "Rejects at": outcome.rejects_at or "",
    }


class _Connection:
    """One connection to the place and the application, opened when first used, used in turns."""

    def __init__(self, what: FileImport, engine: Engine) -> None:
        self.what = what
        self._engine = engine
        self._open: ExitStack | None = None
        self._job: FileImportJob | None = None

    async def job(self) -> FileImportJob:
        """What `import_file` needs."""
        if self._job is None:
            self._job = await in_thread(self._connect)
        return self._job

    async def close(self) -> None:
        """Give both connections back; the next `job` makes new ones."""
        if self._open is not None:
            await in_thread(self._open.close)
        self._open = self._job = None

    def _connect(self) -> FileImportJob:
        what = self.what
        with ExitStack() as stack:
            folder = stack.enter_context(open_folder(what.place))
            api = stack.enter_context(open_api(what.application))
            self._open = stack.pop_all()
        return FileImportJob(
            folder=folder,
            ledger=_ledger(what, self._engine, folder),
            sink=HttpSink(api, what.resource),
            model=what.model,
            validator=RecordValidator(
                what.model,
                columns=what.columns,
                decimal_comma=what.decimal_comma,
                empty_texts=what.empty_texts,
            ),
            after_import=what.after_import,
            run_id=_run_id(),
            file_format=what.file_format,
            batch_size=what.batch_size,
            all_or_nothing=what.all_or_nothing,
            done_file=what.selection.done_file,
        )
