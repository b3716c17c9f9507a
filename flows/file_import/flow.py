"""Import the files that a partner drops somewhere into the application, every few minutes."""

from __future__ import annotations

from typing import Any

from prefect import State

from blocks.http_api import HttpApi
from tasks.connections import load_connection
from tasks.file_import import (
    AfterImport,
    FileFormat,
    FileImport,
    FileSelection,
    ended,
    import_files,
    list_ready_files,
    show_files,
)
from tasks.folders import FOLDER_BLOCKS
from tasks.integration_flow import flow, run_name
from tasks.record_import import MODELS, RecordType


@flow(name="file-import", flow_run_name=run_name("{source}"))
async def file_import(
    source: str,
    record_type: RecordType,
    folder: str = "incoming",
    application: str = "http-api/own-app",
    file_format: FileFormat | None = None,
    columns: dict[str, str] | None = None,
    decimal_comma: bool = False,
    empty_texts: tuple[str, ...] = ("",),
    selection: FileSelection = FileSelection(),
    after_import: AfterImport = AfterImport(),
    batch_size: int = 500,
    all_or_nothing: bool = False,
    files_at_once: int = 1,
    file_retries: int = 2,
    file_retry_delay_s: float = 10,
) -> State[Any]:
    """Import files of one source: select what is ready, send its records, move the files away.

    Retry takes up what this run left unfinished: a failed file from the error folder, where you
    may have mended it, an interrupted one behind the last batch that went through.

    Args:
        source: The block of the place, as type/name: sftp-server/…, s3-bucket-of-files/…,
            dropbox-account/…, google-drive-account/…, azure-file-share/… or local-folder/….
        record_type: What the files hold.
        folder: The folder at the source, from its root.
        application: The block of the application that takes the records.
        file_format: How to read the files; empty: by their names.
        columns: The files' column names to the record's field names, where they differ.
        decimal_comma: Numbers are written as 1.234,50.
        empty_texts: What the files write where there is no value, e.g. NA.
        selection: Which files are taken, and when they count as completely written.
        after_import: What happens to files after the import.
        batch_size: Records a request to the application.
        all_or_nothing: Refuse a whole file for one bad row.
        files_at_once: Files imported side by side, each over a connection of its own.
        file_retries: How often an interrupted file is tried again within the run.
        file_retry_delay_s: Seconds before that.
    """
    what = FileImport(
        # the files to fetch
        place=await load_connection(source, *FOLDER_BLOCKS),
        folder=folder,
        selection=selection,
        file_format=file_format,
        # the records they become
        model=MODELS[record_type],
        columns=columns or {},
        decimal_comma=decimal_comma,
        empty_texts=empty_texts,
        all_or_nothing=all_or_nothing,
        # the application that takes them
        application=await load_connection(application, HttpApi),
        resource=record_type,
        batch_size=batch_size,
        # what happens to the files then, and when they are tried again
        after_import=after_import,
        files_at_once=files_at_once,
        file_retries=file_retries,
        file_retry_delay_s=file_retry_delay_s,
    )
    found = await list_ready_files(what)
    imported = await import_files(what, found)
    await show_files(source, found, imported)
    return ended(imported)
