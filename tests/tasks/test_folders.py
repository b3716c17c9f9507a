"""One set of tasks for every place that holds files."""

from __future__ import annotations

import pytest
from prefect.blocks.system import Secret

from blocks.local_folder import LocalFolder
from tasks.api import is_transient
from tasks.core.connectors.folders.protocol import FileChangedError, TargetExistsError
from tasks.folders import (
    FOLDER_BLOCKS,
    delete_file,
    download_file,
    list_files,
    move_file,
    open_folder,
    upload_file,
)


@pytest.fixture(params=["local", "sftp", "s3", "dropbox", "google_drive", "azure_files"])
def place(request, tmp_path):
    """A block of each kind, over an empty place."""
    if request.param == "local":
        (tmp_path / "place").mkdir()
        return LocalFolder(path=tmp_path / "place")
    if request.param == "s3":
        return request.getfixturevalue("s3_server").block("exchange")
    server = "sftp_server" if request.param == "sftp" else f"{request.param}_api"
    return request.getfixturevalue(server).block()


@pytest.fixture
def source(tmp_path):
    """A file of this machine."""
    path = tmp_path / "stock.csv"
    path.write_text("sku;quantity\n")
    return path


def test_a_file_goes_there_and_back(place, source, tmp_path):
    """Upload, list, move, download and delete work the same on every place."""
    upload_file.fn(place, source, "in/stock.csv")
    with pytest.raises(TargetExistsError):
        upload_file.fn(place, source, "in/stock.csv")
    upload_file.fn(place, source, "in/stock.csv", overwrite=True)

    (file,) = list_files.fn(place, "in")
    assert download_file.fn(place, file, tmp_path / "back.csv").read_text() == "sku;quantity\n"
    move_file.fn(place, "in/stock.csv", "done/stock.csv")
    assert [found.path for found in list_files.fn(place, "", recursive=True)] == ["done/stock.csv"]
    delete_file.fn(place, "done/stock.csv")
    assert list_files.fn(place, "done") == []


def test_an_upload_that_is_tried_again_knows_what_it_stored(place, source, monkeypatch):
    """When only the answer was lost, the retry takes the file for its own; no other one."""
    stored = upload_file.fn(place, source, "in/stock.csv")
    monkeypatch.setenv("PREFECT__RUNTIME__TASK_RUN__RUN_COUNT", "2")
    assert upload_file.fn(place, source, "in/stock.csv") == stored
    source.write_text("sku;price;...\n")
    with pytest.raises(TargetExistsError):
        upload_file.fn(place, source, "in/stock.csv")


def test_a_download_that_fails_leaves_nothing(place, source, tmp_path):
    """Neither a target nor a part of it is left when the file is gone."""
    file = upload_file.fn(place, source, "stock.csv")
    delete_file.fn(place, "stock.csv")
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(FileChangedError):
        download_file.fn(place, file, target / "stock.csv")
    assert list(target.iterdir()) == []


def test_the_kinds_of_places():
    """What flows may offer in their run form."""
    assert sorted(kind.__name__ for kind in FOLDER_BLOCKS) == [
        "AzureFileShare",
        "DropboxAccount",
        "GoogleDriveAccount",
        "LocalFolder",
        "S3Bucket",
        "SftpServer",
    ]


def test_another_block_is_refused():
    """A block that holds no files is told so by name."""
    with (
        pytest.raises(TypeError, match="Secret is no place that holds files"),
        open_folder(Secret(value="s")),
    ):
        pass


@pytest.mark.parametrize(
    "task",
    [list_files, download_file, upload_file, move_file, delete_file],
    ids=lambda task: task.name,
)
def test_tasks_retry_only_what_may_pass(task):
    """Whoever gives a task retries does not wait for what will fail again."""
    assert task.retry_condition_fn is is_transient
