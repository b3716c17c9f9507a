"""Tasks that take rows out of other systems' tables, and write reports into tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Completed

from blocks.errors import IntegrationError
from blocks.sql_database import SqlDatabase
from tasks.api import is_transient, open_api
from tasks.core.connectors.sql.changed_rows import ChangedRows, ChangedRowsSettings
from tasks.core.connectors.sql.report_table import ReportTable
from tasks.core.connectors.sql.row_queue import RowQueue, RowQueueSettings
from tasks.core.state.database import open_database
from tasks.core.sync.api_import.cursors import Cursors, StreamBusy
from tasks.core.sync.record_import.table_rows import (
    FileColumn,
    RowsImported,
    import_changed_rows,
    import_waiting_rows,
)
from tasks.core.threads import in_thread
from tasks.outcomes import counted, ended_as, failed
from tasks.record_import import RecordImport
from tasks.rejects import show_rejects

__all__ = [
    "ChangedRowsSettings",
    "FileColumn",
    "RowQueueSettings",
    "TableImport",
    "import_rows",
    "import_rows_of_table",
    "write_report_table",
]


_FILES_AT_ONCE = 10  # rows with files are held in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class TableImport(RecordImport):
    """Everything that describes one import of rows.

    Attributes:
        name: Of this import; its cursor is kept under it.
        database: Where the rows are.
        rows: Which are taken: those that wait, or those that changed.
        file: The column that holds whole files, if one does.
        max_rows: Rows a run at most.
    """

    name: str
    database: SqlDatabase
    rows: RowQueueSettings | ChangedRowsSettings
    file: FileColumn | None = None
    max_rows: int = 50_000


async def import_rows(
    what: TableImport, *, retries: int = 0, retry_delay_s: float = 10
) -> State[Any]:
    """Import the rows that wait, or that changed since the last run, and show which are bad.

    What the application took is marked, deleted, or behind the cursor; with an error in between,
    the batch is taken once more. Bad rows are told, and fail the run; the others go in.

    Args:
        what: Everything that describes the import.
        retries: How often the rest is tried again while the database or the application is out of
            reach.
        retry_delay_s: Seconds before that.

    Returns:
        The state for the flow to return.
    """
    importing = import_rows_of_table.with_options(
        retries=retries, retry_delay_seconds=retry_delay_s
    )
    state: State[Any] = await importing(what, return_state=True)  # type: ignore[misc]
    imported = await state.aresult(raise_on_failure=False)
    if isinstance(imported, RowsImported):
        await show_rejects(
            f"{what.name}-rejects", f"Rows of {what.name} not imported", imported.rejects
        )
    return ended_as(state)


@task(
    task_run_name="import rows of {what.name}",
    cache_policy=NO_CACHE,
    retry_condition_fn=is_transient,
)
async def import_rows_of_table(what: TableImport) -> State[RowsImported]:
    """The work of `import_rows` as a task run."""
    try:
        imported = await in_thread(_import_rows, what)
    except IntegrationError as error:
        return failed(str(error), data=error)
    if isinstance(imported, StreamBusy):
        message = f"run {imported.owner} is at it; it takes what is there"
        return Completed(message=message, data=RowsImported())
    told = f"{counted(imported.rows, 'row')} imported"
    if what.file is not None:
        told += f", {counted(imported.records, 'record')}"
    if not imported.is_all:
        told += "; that is the limit for one run"
    if not imported.bad:
        return Completed(message=told, data=imported)
    more = imported.bad - len(imported.reasons)
    named = "; ".join(imported.reasons) + (f"; and {more} more" if more > 0 else "")
    return failed(f"{told}, {imported.bad} bad: {named}", data=imported)


@task(task_run_name="write {table}", cache_policy=NO_CACHE)
async def write_report_table(
    database: SqlDatabase,
    table: str,
    rows: Iterable[Mapping[str, Any]],
    *,
    columns: Sequence[str],
    key: Sequence[str] = (),
    replace_where: Mapping[str, Any] | None = None,
) -> int:
    """Write a report into a table: readers see the old rows or all of the new.

    Args:
        database: Where the table is.
        table: The table; it exists already.
        rows: Column to value.
        columns: Those that are written.
        key: Update rows with the same values of these, and insert the others; empty: replace.
        replace_where: Replace only rows with these values, e.g. those of the same period.

    Returns:
        How many rows were written.
    """
    report = ReportTable(database.get_client(), table, columns, system=database.system)
    if key:
        return await in_thread(report.merge, rows, key=key)
    return await in_thread(report.replace, rows, where=replace_where)


def _import_rows(what: TableImport) -> RowsImported | StreamBusy:
    system = what.database.system
    engine = what.database.get_client()
    rows_at_once = min(what.batch_size, _FILES_AT_ONCE) if what.file else what.batch_size
    limits: dict[str, Any] = {
        "file": what.file,
        "rows_at_once": rows_at_once,
        "max_rows": what.max_rows,
    }
    with open_api(what.application) as api:
        importer = what.importer(api, system=system, file=what.file)
        if isinstance(what.rows, RowQueueSettings):
            queue = RowQueue(engine, what.rows, system=system)
            return import_waiting_rows(queue, importer, key=what.rows.key, **limits)
        reader = ChangedRows(engine, what.rows, system=system)
        cursors = Cursors(open_database())
        lease = cursors.lease(what.name, owner=str(flow_run.id or "by hand"))
        if isinstance(lease, StreamBusy):
            return lease
        try:
            return import_changed_rows(
                reader,
                importer,
                cursors,
                lease,
                version=what.rows.version,
                key=what.rows.key,
                **limits,
            )
        finally:
            cursors.release(lease)
            cursors.engine.dispose()
