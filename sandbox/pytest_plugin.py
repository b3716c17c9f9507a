"""The sandbox as pytest fixtures: each starts a stand-in on a free port of the loopback."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sandbox.systems.azure_files_api import AzureSandbox
    from sandbox.systems.crm_api import CrmSandbox
    from sandbox.systems.dropbox_api import DropboxSandbox
    from sandbox.systems.fault_proxy import FaultProxy
    from sandbox.systems.github_api import GithubSandbox
    from sandbox.systems.google_drive_api import DriveSandbox
    from sandbox.systems.marketplace_api import MarketplaceSandbox
    from sandbox.systems.own_app.serving import OwnAppHost, RunningOwnApp
    from sandbox.systems.s3_server import S3Sandbox
    from sandbox.systems.salesforce import SalesforceSandbox
    from sandbox.systems.scripted_api import ScriptedApi
    from sandbox.systems.sftp_server import SftpSandbox


def pytest_configure(config: pytest.Config) -> None:
    """Ignore the Dropbox SDK's use of `utcnow`, which is deprecated since Python 3.12."""
    config.addinivalue_line(
        "filterwarnings", r"ignore:datetime\.datetime\.utcnow:DeprecationWarning:dropbox"
    )


@pytest.fixture(scope="session")
def own_app_host() -> Iterator[OwnAppHost]:
    """The server on which `own_app` is set up anew for each test."""
    from sandbox.systems.own_app.serving import OwnAppHost

    with OwnAppHost() as host:
        yield host


@pytest.fixture
def own_app(own_app_host: OwnAppHost, tmp_path: Path) -> Iterator[RunningOwnApp]:
    """The user's own application, empty, with helpers to switch its behaviour and count calls."""
    with own_app_host.serving(tmp_path / "own_app.db") as running:
        yield running


@pytest.fixture
def scripted_api() -> Iterator[ScriptedApi]:
    """A partner's HTTP API that responds exactly as the test scripts it."""
    from sandbox.systems import scripted_api

    with scripted_api.start() as running:
        yield running


@pytest.fixture
def github_api() -> Iterator[GithubSandbox]:
    """GitHub with one repository, without webhooks."""
    from sandbox.systems import github_api

    with github_api.start() as running:
        yield running


@pytest.fixture
def salesforce() -> Iterator[SalesforceSandbox]:
    """A Salesforce organisation without records and outbound messages."""
    from sandbox.systems import salesforce

    with salesforce.start() as running:
        yield running


@pytest.fixture(scope="session")
def sftp_server_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpSandbox]:
    """The server that `sftp_server` empties before each test."""
    from sandbox.systems import sftp_server

    with sftp_server.start(tmp_path_factory.mktemp("sftp")) as running:
        yield running


@pytest.fixture
def sftp_server(sftp_server_of_session: SftpSandbox) -> SftpSandbox:
    """A partner's SFTP server, empty and without faults."""
    from sandbox.systems.sftp_server import Faults

    vars(sftp_server_of_session.faults).update(vars(Faults()))
    sftp_server_of_session.requests.clear()
    _empty(sftp_server_of_session.files)
    return sftp_server_of_session


@pytest.fixture(scope="session")
def s3_server_of_session() -> Iterator[S3Sandbox]:
    """The service in which `s3_server` makes the bucket anew for each test."""
    from sandbox.systems import s3_server

    with s3_server.start() as running:
        yield running


@pytest.fixture
def s3_server(s3_server_of_session: S3Sandbox) -> S3Sandbox:
    """An S3 service with one empty bucket, "exchange"."""
    s3_server_of_session.reset(buckets=["exchange"])
    return s3_server_of_session


@pytest.fixture(scope="session")
def dropbox_api_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DropboxSandbox]:
    """The API whose account `dropbox_api` empties before each test."""
    from sandbox.systems import dropbox_api

    with dropbox_api.start(tmp_path_factory.mktemp("dropbox")) as running:
        yield running


@pytest.fixture
def dropbox_api(dropbox_api_of_session: DropboxSandbox) -> DropboxSandbox:
    """A Dropbox account, empty and without faults."""
    from sandbox.systems.dropbox_routes import Faults

    vars(dropbox_api_of_session.faults).update(vars(Faults()))
    dropbox_api_of_session.requests.clear()
    _empty(dropbox_api_of_session.files)
    return dropbox_api_of_session


@pytest.fixture(scope="session")
def google_drive_api_of_session() -> Iterator[DriveSandbox]:
    """The API whose shared folder `google_drive_api` empties before each test."""
    from sandbox.systems import google_drive_api

    with google_drive_api.start() as running:
        yield running


@pytest.fixture
def google_drive_api(google_drive_api_of_session: DriveSandbox) -> DriveSandbox:
    """A shared folder of Google Drive, empty and without faults."""
    google_drive_api_of_session.reset()
    return google_drive_api_of_session


@pytest.fixture(scope="session")
def azure_files_api_of_session() -> Iterator[AzureSandbox]:
    """The API whose share `azure_files_api` empties before each test."""
    from sandbox.systems import azure_files_api

    with azure_files_api.start() as running:
        yield running


@pytest.fixture
def azure_files_api(azure_files_api_of_session: AzureSandbox) -> AzureSandbox:
    """An Azure file share, empty and without faults."""
    azure_files_api_of_session.reset()
    return azure_files_api_of_session


@pytest.fixture(scope="session")
def marketplace_api_of_session() -> Iterator[MarketplaceSandbox]:
    """The API that `marketplace_api` empties before each test."""
    from sandbox.systems import marketplace_api

    with marketplace_api.start(requests_a_minute=1_000_000) as running:
        yield running


@pytest.fixture
def marketplace_api(marketplace_api_of_session: MarketplaceSandbox) -> MarketplaceSandbox:
    """A marketplace's orders API, without orders and faults."""
    marketplace_api_of_session.reset()
    return marketplace_api_of_session


@pytest.fixture(scope="session")
def crm_of_session() -> Iterator[CrmSandbox]:
    """The CRM that `crm` empties before each test."""
    from sandbox.systems import crm_api

    with crm_api.start() as running:
        yield running


@pytest.fixture
def crm(crm_of_session: CrmSandbox) -> CrmSandbox:
    """A CRM without contacts, webhooks and faults."""
    crm_of_session.reset()
    return crm_of_session


@pytest.fixture
def fault_proxy() -> Iterator[Callable[[int], FaultProxy]]:
    """Starts a proxy in front of a local port that can be slow, break or refuse connections."""
    from sandbox.systems import fault_proxy

    with ExitStack() as running:
        yield lambda port: running.enter_context(fault_proxy.start(("127.0.0.1", port)))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
