"""Tasks of a scheduled file import: list what is ready, import each file, show what happened."""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from prefect import State, task
from prefect.blocks.core import Block
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.runtime import flow_run
from sqlalchemy import Engine

from blocks.errors import IntegrationError, TransientError
from blocks.http_api import HttpApi
from tasks.api import open_api
from tasks.core.connectors.folders.protocol import RemoteFile, RemoteFolder
from tasks.core.formats.records.formats import FileFormat
from tasks.core.state.database import open_database
from tasks.core.sync.batches.http_sink import HttpSink
from tasks.core.sync.file_import.after_import import AfterImport
from tasks.core.sync.file_import.importing import import_file, settle_duplicate
from tasks.core.sync.file_import.job import FileImportJob, FileImportResult, FilesResult
from tasks.core.sync.file_import.ledger import FileLedger
from tasks.core.sync.file_import.selection import (
    FileSelection,
    WaitingFile,
    WorkItem,
    find_ready_files,
    plan_work,
)
from tasks.core.threads import in_thread
from tasks.folders import open_folder
from tasks.import_results import ended, show_table
from tasks.outcomes import failed
from tasks.progress import work_in_thread
from tasks.record_import import RecordImport

__all__ = [
    "AfterImport",
    "FileFormat",
    "FileImport",
    "FileSelection",
    "FilesFound",
    "ended",
    "import_files",
    "import_one_file",
    "list_ready_files",
    "show_files",
]


_COLLECT_AFTER = (10_000, 20, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileImport(RecordImport):
    """Everything that describes one import: from where, as what, to where, and how.

    Attributes:
        place: A folder block.
        folder: The folder in it.
        file_format: How files are read; None: by their names.
        batch_size: Records sent at once.
        file_retries: How often a file that was interrupted is tried again within a run.
    """

    place: Block
    folder: str
    file_format: FileFormat | None = None
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


async def import_files(what: FileImport, found: FilesFound) -> FilesResult:
    """Import each file as a task run of its own, some at once.

    When the application or the place cannot be reached, the files not yet begun are left for the
    next run.

    Returns:
        What became of all, and of each in the order in which they ended.
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
    return FilesResult.of(outcomes)


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


async def show_files(source: str, found: FilesFound, imported: FilesResult) -> None:
    """Put a table of all files, and one of all rejected rows, into the Prefect UI."""
    key = f"file-import-{source.partition('/')[2]}"
    rows = [_file_row(file) for file in imported.files]
    rows += [{"File": w.file.path, "Result": "waiting", "Why": w.reason} for w in found.waiting]
    await show_table(key, f"Files of {source} and what became of them", rows)
    rejects = [
        {
            "File": reject.id,
            "Page": reject.page,
            "Line": reject.line,
            "Column": reject.field,
            "Why": reject.reason,
            "All rejects": file.rejects_at,
        }
        for file in imported.files
        for reject in file.rejects
    ]
    await show_table(f"{key}-rejects", f"Rows of {source} not imported", rejects)


async def _settle(connection: _Connection, duplicate: RemoteFile) -> FileImportResult:
    try:
        job = await connection.job()
    except IntegrationError as exc:
        path = duplicate.path
        return FileImportResult.at(path, "interrupted", path, str(exc), exc)
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
    return FileImportResult.at(path, "failed", path, reason)


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
    reason = f"not tried, since {interrupted.path} could not go on"
    return FileImportResult.at(path, "left", path, reason)


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


def _file_row(file: FileImportResult) -> dict[str, Any]:
    counts = file.counts
    return {
        "File": file.path,
        "Result": file.result,
        "Rows imported": counts.records,
        "Created": counts.created,
        "Updated": counts.updated,
        "Unchanged": counts.unchanged,
        "Rows rejected": counts.rejected,
        "Why": file.reason,
        "Now at": file.now_at,
        "Rejects at": file.rejects_at,
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
            validator=what.validator(),
            after_import=what.after_import,
            run_id=_run_id(),
            file_format=what.file_format,
            batch_size=what.batch_size,
            all_or_nothing=what.all_or_nothing,
            done_file=what.selection.done_file,
        )
