"""Opens any place that holds files, and moves files in and out of it as tasks.

A new kind of place needs a class with the methods of `RemoteFolder`, a block, and a line here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from prefect import task
from prefect.blocks.core import Block
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run

from blocks.azure_file_share import AzureFileShare
from blocks.dropbox_account import DropboxAccount
from blocks.google_drive_account import GoogleDriveAccount
from blocks.local_folder import LocalFolder
from blocks.s3_bucket import S3Bucket
from blocks.sftp_server import SftpServer
from tasks.api import is_transient
from tasks.core.connectors.folders.contents import find_content
from tasks.core.connectors.folders.local import LocalFiles
from tasks.core.connectors.folders.protocol import RemoteFile, RemoteFolder, TargetExistsError

__all__ = [
    "FOLDER_BLOCKS",
    "RemoteFile",
    "RemoteFolder",
    "TargetExistsError",
    "delete_file",
    "download_file",
    "list_files",
    "move_file",
    "open_folder",
    "upload_file",
]

_COPY_BYTES = 1024 * 1024


def _local(block: LocalFolder) -> RemoteFolder:
    return LocalFiles(block.get_client(), system=block.system)


def _sftp(block: SftpServer) -> RemoteFolder:
    from tasks.core.connectors.folders.sftp import SftpFiles

    return SftpFiles(
        block.get_client,
        system=block.system,
        root=block.root_folder,
        timeout_s=block.read_timeout_s,
    )


def _s3(block: S3Bucket) -> RemoteFolder:
    from tasks.core.connectors.folders.s3 import S3Files

    return S3Files(block.get_client(), block.bucket, system=block.system, prefix=block.prefix)


def _dropbox(block: DropboxAccount) -> RemoteFolder:
    from tasks.core.connectors.folders.dropbox import DropboxFiles

    return DropboxFiles(block.get_client(), system=block.system, root=block.root_folder)


def _google_drive(block: GoogleDriveAccount) -> RemoteFolder:
    from tasks.core.connectors.folders.google_drive import DriveFiles

    return DriveFiles(block.get_client(), system=block.system, root_id=block.folder_id)


def _azure_files(block: AzureFileShare) -> RemoteFolder:
    client = block.get_client()  # first, as it says what to install if that is missing
    from tasks.core.connectors.folders.azure_files import AzureFiles

    return AzureFiles(client, system=block.system, root=block.root_folder)


# Their clients take long to import, so only those in use are imported.
_OPENERS: dict[type[Block], Callable[[Any], RemoteFolder]] = {
    LocalFolder: _local,
    SftpServer: _sftp,
    S3Bucket: _s3,
    DropboxAccount: _dropbox,
    GoogleDriveAccount: _google_drive,
    AzureFileShare: _azure_files,
}
FOLDER_BLOCKS = tuple(_OPENERS)


@contextmanager
def open_folder(place: Block) -> Iterator[RemoteFolder]:
    """Open the place that a block describes, for one thread, until the `with` block ends.

    Args:
        place: One of `FOLDER_BLOCKS`.

    Raises:
        TypeError: The block does not describe a place that holds files.
    """
    opener = _OPENERS.get(type(place))
    if opener is None:
        raise TypeError(f"{type(place).__name__} is no place that holds files")
    with closing(opener(place)) as folder:
        yield folder


@task(task_run_name="list {path}", cache_policy=NO_CACHE, retry_condition_fn=is_transient)
def list_files(place: Block, path: str, *, recursive: bool = False) -> list[RemoteFile]:
    """Return the files of a folder, sorted by path.

    Args:
        place: One of `FOLDER_BLOCKS`.
        path: The folder, relative to the place's root; "" is the root.
        recursive: Whether to include all folders below.

    Raises:
        MisconfiguredError: The folder is missing or may not be read.
    """
    with open_folder(place) as folder:
        return sorted(folder.list_files(path, recursive=recursive), key=lambda file: file.path)


@task(task_run_name="download {file.name}", cache_policy=NO_CACHE, retry_condition_fn=is_transient)
def download_file(place: Block, file: RemoteFile, target: Path) -> Path:
    """Copy a listed file to this machine; `target` appears whole or not at all.

    Raises:
        FileChangedError: It vanished or changed since it was listed.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        with (
            open_folder(place) as folder,
            folder.open(file) as content,
            part.open("wb") as written,
        ):
            while chunk := content.read(_COPY_BYTES):
                written.write(chunk)
        return part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@task(task_run_name="upload {path}", cache_policy=NO_CACHE, retry_condition_fn=is_transient)
def upload_file(place: Block, source: Path, path: str, *, overwrite: bool = False) -> RemoteFile:
    """Copy a file from this machine to a place, where it appears whole or not at all.

    In a retry, an existing file with this content counts as stored by the earlier attempt.

    Raises:
        TargetExistsError: There is a file at `path` and `overwrite` is off.
    """
    with open_folder(place) as folder, source.open("rb") as content:
        size = source.stat().st_size
        try:
            return folder.put(path, content, size=size, overwrite=overwrite)
        except TargetExistsError:
            if task_run.run_count < 2:
                raise
            content.seek(0)
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            stored = find_content(folder, path, size=size, sha256=digest)
            if stored is None:
                raise
            return stored


@task(task_run_name="move {path}", cache_policy=NO_CACHE, retry_condition_fn=is_transient)
def move_file(place: Block, path: str, target: str, *, overwrite: bool = False) -> None:
    """Move a file within a place; create folders as needed.

    Raises:
        TargetExistsError: There is a file at `target` and `overwrite` is off.
        FileChangedError: The file is gone.
    """
    with open_folder(place) as folder:
        folder.move(path, target, overwrite=overwrite)


@task(task_run_name="delete {path}", cache_policy=NO_CACHE, retry_condition_fn=is_transient)
def delete_file(place: Block, path: str) -> None:
    """Delete a file; do nothing if it is already gone."""
    with open_folder(place) as folder:
        folder.delete(path)
