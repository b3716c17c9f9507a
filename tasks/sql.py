"""Tasks that take rows out of other systems' tables, and write reports into tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from blocks.errors import IntegrationError
from blocks.sql_database import SqlDatabase
from tasks.api import is_transient, open_api
from tasks.core.connectors.sql.changed_rows import ChangedRows, ChangedRowsSettings
from tasks.core.connectors.sql.report_table import ReportTable
from tasks.core.connectors.sql.row_queue import RowQueue, RowQueueSettings
from tasks.core.state.database import open_database
from tasks.core.sync.api_import.cursors import Cursors, StreamBusy
from tasks.core.sync.api_import.job import reason_of
from tasks.core.sync.batches.result import ImportResult
from tasks.core.sync.record_import.table_rows import (
    FileColumn,
    import_changed_rows,
    import_waiting_rows,
)
from tasks.core.threads import in_thread
from tasks.import_results import ended, run_import, show_rejects
from tasks.outcomes import failed
from tasks.record_import import RecordImport

__all__ = [
    "ChangedRowsSettings",
    "FileColumn",
    "RowQueueSettings",
    "TableImport",
    "ended",
    "import_rows",
    "import_rows_of_table",
    "show_bad_rows",
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
        batch_size: Rows taken, and records sent, at once.
        max_rows: Rows a run at most.
    """

    name: str
    database: SqlDatabase
    rows: RowQueueSettings | ChangedRowsSettings
    file: FileColumn | None = None
    batch_size: int = 500
    max_rows: int = 50_000


async def import_rows(
    what: TableImport, *, retries: int = 0, retry_delay_s: float = 10
) -> ImportResult:
    """Import the rows that wait, or that changed since the last run.

    What the application took is marked, deleted, or behind the cursor; with an error in between,
    the batch is taken once more. Bad rows are told, and fail the run; the others go in.

    Args:
        what: Everything that describes the import.
        retries: How often the rest is tried again while the database or the application is out of
            reach.
        retry_delay_s: Seconds before that.
    """
    return await run_import(
        import_rows_of_table, what, ImportResult, retries=retries, retry_delay_s=retry_delay_s
    )


@task(
    task_run_name="import rows of {what.name}",
    cache_policy=NO_CACHE,
    retry_condition_fn=is_transient,
)
async def import_rows_of_table(what: TableImport) -> State[ImportResult]:
    """The work of `import_rows` as a task run."""
    try:
        imported = await in_thread(_import_rows, what)
    except IntegrationError as error:
        return failed(str(error), data=error)
    return ended(imported, data=imported)


async def show_bad_rows(what: TableImport, imported: ImportResult) -> None:
    """Put a table of the records that were not taken into the Prefect UI, if any were not."""
    description = f"Rows of {what.name} not imported"
    await show_rejects(f"{what.name}-rejects", description, imported.rejects)


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


def _import_rows(what: TableImport) -> ImportResult:
    system = what.database.system
    engine = what.database.get_client()
    rows_at_once = min(what.batch_size, _FILES_AT_ONCE) if what.file else what.batch_size
    limits: dict[str, Any] = {
        "file": what.file,
        "rows_at_once": rows_at_once,
        "max_rows": what.max_rows,
    }
    with open_api(what.application) as api:
        importer = what.importer(api, system=system, file=what.file, batch_size=what.batch_size)
        if isinstance(what.rows, RowQueueSettings):
            queue = RowQueue(engine, what.rows, system=system)
            return import_waiting_rows(queue, importer, key=what.rows.key, **limits)
        reader = ChangedRows(engine, what.rows, system=system)
        cursors = Cursors(open_database())
        lease = cursors.lease(what.name, owner=str(flow_run.id or "by hand"))
        if isinstance(lease, StreamBusy):
            return ImportResult(result="busy", reason=reason_of(lease))
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
