"""Tasks that take rows out of other systems' tables, and write reports into tables."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from pydantic import BaseModel, TypeAdapter, ValidationError

from blocks.errors import UpstreamRejectedError
from blocks.http_api import HttpApi
from blocks.sql_database import SqlDatabase
from tasks.api import open_api
from tasks.outcomes import failed
from tasks.plain.http.client import ApiClient
from tasks.plain.sql_tables.report_table import ReportTable
from tasks.plain.sql_tables.row_queue import ClaimedRows, RowQueue, RowQueueSettings

_NAMED = 5


@task(task_run_name="import rows of {rows.table}", cache_policy=NO_CACHE)
async def import_waiting_rows(
    database: SqlDatabase,
    rows: RowQueueSettings,
    application: HttpApi,
    *,
    resource: str,
    model: type[BaseModel],
    columns: Mapping[str, str] | None = None,
    batch_size: int = 500,
    max_batches: int = 100,
) -> State[int]:
    """Import the rows that wait in a table, each batch marked or deleted when it is in.

    A row that is no such record, or that the application refuses, is marked as bad, and the run
    fails; without a column for marks the import stops at it.

    Args:
        database: Where the table is.
        rows: Which rows wait, and what becomes of them.
        application: Takes the records, as `POST <resource>/batch`.
        resource: What the records are there, e.g. "orders".
        model: What a record must be.
        columns: The table's column names to the model's field names, where they differ.
        batch_size: Rows locked, and records sent, at once.
        max_batches: Batches a run at most.

    Raises:
        TransientError: The database or the application is out of reach; rows that were not
            imported wait as before.
    """
    return await asyncio.to_thread(
        _import_rows,
        RowQueue(database.get_client(), rows, system=database.system),
        application,
        resource,
        TypeAdapter(model),
        dict(columns or {}),
        batch_size,
        max_batches,
    )


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
        return await asyncio.to_thread(report.merge, rows, key=key)
    return await asyncio.to_thread(report.replace, rows, where=replace_where)


def _import_rows(
    queue: RowQueue,
    application: HttpApi,
    resource: str,
    adapter: TypeAdapter[Any],
    columns: dict[str, str],
    batch_size: int,
    max_batches: int,
) -> State[int]:
    imported = 0
    reasons: list[str] = []
    with open_api(application) as api:
        for _ in range(max_batches):
            with queue.claim(batch_size) as claimed:
                if not claimed.rows:
                    break
                _send(api, resource, adapter, columns, claimed)
                imported += len(claimed.rows) - len(claimed.failed)
                reasons += [f"row {key}: {why}" for key, why in claimed.failed.items()]
    told = f"{imported} rows imported"
    if reasons:
        more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
        told = f"{told}, {len(reasons)} bad: {'; '.join(reasons[:_NAMED])}{more}"
        return failed(told, data=imported)
    return Completed(message=told, data=imported)


def _send(
    api: ApiClient,
    resource: str,
    adapter: TypeAdapter[Any],
    columns: Mapping[str, str],
    claimed: ClaimedRows,
) -> None:
    good: list[tuple[Mapping[str, Any], Any]] = []
    for row in claimed.rows:
        try:
            named = {columns.get(name, name): value for name, value in row.items()}
            good.append((row, adapter.validate_python(named)))
        except ValidationError as exc:
            fault = exc.errors(include_input=False, include_url=False, include_context=False)[0]
            claimed.fail(row, f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}")
    while good:
        try:
            api.call(
                "POST",
                f"{resource}/batch",
                json={"records": [adapter.dump_python(item, mode="json") for _, item in good]},
                idempotency_key=f"{claimed.idempotency_key}-{len(claimed.failed)}",
                operation=f"import {resource}",
            )
        except UpstreamRejectedError as error:
            refused = {
                detail["index"]: str(detail.get("reason", "refused"))
                for detail in error.details
                if isinstance(detail.get("index"), int) and 0 <= detail["index"] < len(good)
            }
            if not refused:
                raise
            for index, reason in refused.items():
                claimed.fail(good[index][0], reason)
            good = [each for index, each in enumerate(good) if index not in refused]
        else:
            return
