"""The same empty place on each of the four systems."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tasks.plain.remote_folders.dropbox import DropboxFiles
from tasks.plain.remote_folders.local import LocalFiles
from tasks.plain.remote_folders.s3 import S3Files
from tasks.plain.remote_folders.sftp import SftpFiles


@pytest.fixture
def sftp_folder(sftp_server) -> Iterator[Callable[..., SftpFiles]]:
    """Opens the SFTP server; what is given goes before what would be right in the block."""
    with ExitStack() as opened:

        def open_it(**fields: Any) -> SftpFiles:
            block = sftp_server.block(**fields)
            return opened.enter_context(
                closing(
                    SftpFiles(
                        block.get_client,
                        system=block.system,
                        root=block.root_folder,
                        timeout_s=block.read_timeout_s,
                    )
                )
            )

        yield open_it


@pytest.fixture
def s3_folder(s3_server) -> Iterator[Callable[..., S3Files]]:
    """Opens the S3 bucket; what is given goes before what would be right in the block."""
    with ExitStack() as opened:

        def open_it(**fields: Any) -> S3Files:
            block = s3_server.block(**{"bucket": "exchange", "attempts": 1, **fields})
            return opened.enter_context(
                closing(
                    S3Files(
                        block.get_client(), block.bucket, system=block.system, prefix=block.prefix
                    )
                )
            )

        yield open_it


@pytest.fixture
def dropbox_folder(dropbox_api) -> Iterator[Callable[..., DropboxFiles]]:
    """Opens the Dropbox account; what is given goes before what would be right in the block."""
    with ExitStack() as opened:

        def open_it(**fields: Any) -> DropboxFiles:
            block = dropbox_api.block(**fields)
            return opened.enter_context(
                closing(
                    DropboxFiles(block.get_client(), system=block.system, root=block.root_folder)
                )
            )

        yield open_it


@pytest.fixture
def local_folder(tmp_path) -> LocalFiles:
    """A folder of this machine."""
    root = tmp_path / "drop"
    root.mkdir()
    return LocalFiles(root, system=f"file://{root}")


@pytest.fixture(params=["local", "sftp", "s3", "dropbox"])
def folder(request):
    """The place, empty; each test runs on all four."""
    if request.param == "local":
        return request.getfixturevalue("local_folder")
    return request.getfixturevalue(f"{request.param}_folder")()
