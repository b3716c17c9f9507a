"""The same empty place on each system that holds files."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from getpass import getuser
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from blocks.errors import IntegrationError
from blocks.sftp_server import SftpServer
from tasks.core.connectors.folders.azure_files import AzureFiles
from tasks.core.connectors.folders.dropbox import DropboxFiles
from tasks.core.connectors.folders.google_drive import DriveFiles
from tasks.core.connectors.folders.local import LocalFiles
from tasks.core.connectors.folders.s3 import S3Files
from tasks.core.connectors.folders.sftp import SftpFiles


def opened_sftp(block: SftpServer) -> SftpFiles:
    return SftpFiles(
        block.get_client,
        system=block.system,
        root=block.root_folder,
        timeout_s=block.read_timeout_s,
    )


@pytest.fixture
def sftp_folder(sftp_server) -> Iterator[Callable[..., SftpFiles]]:
    """Opens the SFTP server; what is given goes before what would be right in the block."""
    with ExitStack() as opened:
        yield lambda **fields: opened.enter_context(
            closing(opened_sftp(sftp_server.block(**fields)))
        )


@pytest.fixture(scope="session")
def openssh(tmp_path_factory) -> Iterator[SftpServer]:
    """OpenSSH's own server, as the user that runs the tests, where it is installed."""
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if sshd is None:
        pytest.skip("OpenSSH's server is not installed")
    home = tmp_path_factory.mktemp("openssh")
    (home / "files").mkdir()
    for name in ("host_key", "client_key"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(home / name)
        key.write_public_key(home / f"{name}.pub")
        (home / name).chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (home / "config").write_text(
        f"""
        ListenAddress 127.0.0.1:{port}
        HostKey {home}/host_key
        AuthorizedKeysFile {home}/client_key.pub
        PidFile none
        StrictModes no
        UsePAM no
        Subsystem sftp internal-sftp -d {home}/files
        """
    )
    with suppress(OSError):  # asked for only when it runs as root
        Path("/run/sshd").mkdir()
    server = subprocess.Popen([sshd, "-D", "-f", home / "config", "-E", home / "log"])
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        block = SftpServer(
            host="127.0.0.1",
            port=port,
            username=getuser(),
            private_key=(home / "client_key").read_text(),
            known_hosts=(home / "host_key.pub").read_text(),
            root_folder=f"{home}/files",
        )
        try:
            with closing(opened_sftp(block)) as folder:
                folder.stat("anything")
        except IntegrationError as exc:
            pytest.skip(f"OpenSSH's server does not let this user in ({exc.message})")
        yield block
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def openssh_folder(openssh) -> Iterator[SftpFiles]:
    """A folder on OpenSSH's server, empty."""
    files = Path(openssh.root_folder)
    shutil.rmtree(files)
    files.mkdir()
    with closing(opened_sftp(openssh)) as folder:
        yield folder


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
def google_drive_folder(google_drive_api) -> Iterator[Callable[..., DriveFiles]]:
    """Opens Google Drive; what is given goes before what would be right in the block."""
    with ExitStack() as opened:

        def open_it(sleep: Callable[[float], None] = time.sleep, **fields: Any) -> DriveFiles:
            block = google_drive_api.block(**fields)
            return opened.enter_context(
                closing(
                    DriveFiles(
                        block.get_client(),
                        system=block.system,
                        root_id=block.folder_id,
                        sleep=sleep,
                    )
                )
            )

        yield open_it


@pytest.fixture
def azure_files_folder(azure_files_api) -> Iterator[Callable[..., AzureFiles]]:
    """Opens the Azure file share; what is given goes before what would be right in the block."""
    with ExitStack() as opened:

        def open_it(**fields: Any) -> AzureFiles:
            block = azure_files_api.block(**fields)
            return opened.enter_context(
                closing(AzureFiles(block.get_client(), system=block.system, root=block.root_folder))
            )

        yield open_it


@pytest.fixture
def local_folder(tmp_path) -> LocalFiles:
    """A folder of this machine."""
    root = tmp_path / "drop"
    root.mkdir()
    return LocalFiles(root, system=f"file://{root}")


@pytest.fixture
def tiny_disk(tmp_path) -> Iterator[Path]:
    """A disk of 2 MiB, where the tests may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.fixture(params=["local", "sftp", "openssh", "s3", "dropbox", "google_drive", "azure_files"])
def folder(request):
    """The place, empty; each test runs on all of them."""
    if request.param in ("local", "openssh"):
        return request.getfixturevalue(f"{request.param}_folder")
    return request.getfixturevalue(f"{request.param}_folder")()
