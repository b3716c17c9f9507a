"""Import rows of another system's table into the application, every few minutes."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import State
from pydantic import Field

from blocks.http_api import HttpApi
from blocks.sql_database import SqlDatabase
from tasks.connections import load_connection
from tasks.integration_flow import flow, run_name
from tasks.record_import import MODELS, RecordType
from tasks.sql import (
    ChangedRowsSettings,
    FileColumn,
    RowQueueSettings,
    TableImport,
    ended,
    import_rows,
    show_bad_rows,
)

Rows = Annotated[RowQueueSettings | ChangedRowsSettings, Field(discriminator="take")]


@flow(name="table-import", flow_run_name=run_name("{name}"))
async def table_import(
    name: str,
    database: str,
    rows: Rows,
    record_type: RecordType,
    application: str = "http-api/own-app",
    columns: dict[str, str] | None = None,
    decimal_comma: bool = False,
    empty_texts: tuple[str, ...] = ("",),
    file: FileColumn | None = None,
    batch_size: int = 500,
    max_rows: int = 50_000,
    retries: int = 2,
    retry_delay_s: float = 10,
) -> State[Any]:
    """Import rows of one table: take them, check them, send them, then mark them or go on.

    Rows that wait are marked or deleted when the application has them. Rows that changed are
    read behind a cursor, which moves on when the application has them. Retry takes what is left.

    Args:
        name: Short name of this import, under which its cursor is kept.
        database: The block of the database, as sql-database/….
        rows: Which rows: those that wait in a table, or those that changed since the last run.
        record_type: What the rows hold.
        application: The block of the application that takes the records.
        columns: The table's column names to the record's field names, where they differ; those
            of the files, where rows hold files.
        decimal_comma: Numbers in texts are written as 1.234,50.
        empty_texts: What the table holds where there is no value, besides NULL.
        file: The column that holds whole files, whose records are imported; empty: each row is a
            record.
        batch_size: Rows locked or read at once, and records a request to the application.
        max_rows: Rows a run at most.
        retries: How often the rest is tried again when something is out of reach.
        retry_delay_s: Seconds before that.
    """
    what = TableImport(
        # the rows to fetch
        name=name,
        database=await load_connection(database, SqlDatabase),
        rows=rows,
        file=file,
        max_rows=max_rows,
        # the records they become
        model=MODELS[record_type],
        columns=columns or {},
        decimal_comma=decimal_comma,
        empty_texts=empty_texts,
        # the application that takes them
        application=await load_connection(application, HttpApi),
        resource=record_type,
        batch_size=batch_size,
    )
    imported = await import_rows(what, retries=retries, retry_delay_s=retry_delay_s)
    await show_bad_rows(what, imported)
    return ended(imported)
