"""What only Dropbox can do wrong, and what the operator then reads."""

from __future__ import annotations

import contextlib
import io
import socket

import pytest

from blocks.errors import (
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
)
from tasks.core.connectors.folders.dropbox import DropboxFiles
from tasks.core.connectors.folders.protocol import FileChangedError, TargetExistsError


def put(folder, path, content=b"content", **options):
    return folder.put(path, io.BytesIO(content), size=len(content), **options)


@pytest.mark.parametrize(
    "wrong", [{"refresh_token": "stolen"}, {"app_secret": "guessed"}, {"app_key": "another"}]
)
def test_wrong_credentials(dropbox_folder, wrong):
    """The message says what to renew, and shows neither token nor secret."""
    folder = dropbox_folder(**wrong)
    with pytest.raises(MisconfiguredError) as caught:
        list(folder.list_files(""))
    assert caught.value.message == (
        "Dropbox refused the log-in (invalid_access_token); let the account's owner authorise the "
        "app again, and put the new refresh token into the block"
    )
    assert "stolen" not in str(caught.value)
    assert "guessed" not in str(caught.value)


def test_an_access_token_that_has_expired(dropbox_folder, dropbox_api):
    """It is renewed on the way, also between the pages of a listing."""
    folder = dropbox_folder()
    dropbox_api.faults.page_entries = 1
    for number in range(3):
        put(folder, f"{number}")
    listing = folder.list_files("")
    next(listing)
    dropbox_api.expire_tokens()
    assert len(list(listing)) == 2


def test_a_missing_scope(dropbox_folder, dropbox_api):
    """The message names the scope that the app lacks."""
    folder = dropbox_folder()
    dropbox_api.faults.missing_scope = "files.content.write"
    with pytest.raises(MisconfiguredError) as caught:
        put(folder, "a")
    assert str(caught.value) == (
        f"{folder.system}: put 'a': the app lacks the scope files.content.write; add it in the "
        "Dropbox app console, and let the owner authorise the app again"
    )


def test_too_many_requests(dropbox_folder, dropbox_api):
    """The wait that Dropbox asks for is passed on, not slept through."""
    folder = dropbox_folder()
    dropbox_api.faults.busy = 1
    dropbox_api.faults.retry_after_s = 17
    with pytest.raises(UpstreamBusyError, match="is busy") as caught:
        folder.stat("a")
    assert caught.value.retry_after_s == 17
    assert dropbox_api.requests["files/get_metadata"] == 1
    assert folder.stat("a") is None


def test_a_failure_of_dropbox(dropbox_folder, dropbox_api):
    """A 500 is worth trying again, and is not tried again behind the flow's back."""
    folder = dropbox_folder()
    dropbox_api.faults.failing = 1
    with pytest.raises(UpstreamFailedError, match="Dropbox failed with 500"):
        folder.stat("a")
    assert dropbox_api.requests["files/get_metadata"] == 1


@pytest.mark.parametrize("size", [10, 9_000_000])
def test_a_full_account(dropbox_folder, dropbox_api, size):
    """The message says who has to make room."""
    folder = dropbox_folder()
    dropbox_api.faults.full = True
    with pytest.raises(PermanentError, match="no room in the account; have its owner make room"):
        put(folder, "in/a", bytes(size))
    assert folder.stat("in/a") is None


def test_a_move_that_only_changes_case_deletes_nothing(dropbox_folder):
    """Names ignore case there: what is in the way is the file itself, and never deleted."""
    folder = dropbox_folder()
    put(folder, "in/a")
    with pytest.raises(TargetExistsError):
        folder.move("in/a", "in/A", overwrite=True)
    assert folder.stat("in/a") is not None


def test_nobody_listens(dropbox_folder):
    """A refused connection is worth trying again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    folder = dropbox_folder(api_url=f"http://127.0.0.1:{port}")
    with pytest.raises(UnreachableError, match="no connection; is Dropbox reachable from this ma"):
        list(folder.list_files(""))


def test_an_api_that_falls_silent(dropbox_folder, dropbox_api, fault_proxy):
    """A request is given up after the read time-out."""
    proxy = fault_proxy(dropbox_api.port)
    folder = dropbox_folder(api_url=f"http://127.0.0.1:{proxy.port}", read_timeout_s=0.2)
    put(folder, "a")
    proxy.swallow = True
    with pytest.raises(UnreachableError, match="no answer in time; is Dropbox reachable"):
        folder.stat("a")


def test_a_connection_cut_in_the_middle_of_a_download(dropbox_folder, dropbox_api):
    """A shortened answer is not taken for a shorter file."""
    folder = dropbox_folder()
    file = put(folder, "large.csv", bytes(3_000_000))
    dropbox_api.faults.cut_after_bytes = 1_000_000
    with folder.open(file) as stream, pytest.raises(UnreachableError) as caught:
        stream.read()
    assert str(caught.value) == (
        f"{folder.system}: read 'large.csv': the connection was cut in the middle; try again"
    )


def test_content_that_was_damaged_on_the_way(dropbox_folder, dropbox_api):
    """What arrives is held against Dropbox's own hash before the end is believed."""
    folder = dropbox_folder()
    file = put(folder, "a", bytes(3_000_000))
    dropbox_api.faults.damage = True
    with (
        folder.open(file) as stream,
        pytest.raises(UpstreamFailedError, match="was damaged"),
    ):
        stream.read()


def test_a_listing_asks_once_a_page(dropbox_folder, dropbox_api):
    """Seven files on pages of three cost three requests and no look-up of a single file."""
    folder = dropbox_folder()
    for number in range(7):
        put(folder, f"in/{number}")
    dropbox_api.requests.clear()
    dropbox_api.faults.page_entries = 3
    assert len(list(folder.list_files("in"))) == 7
    assert dropbox_api.requests == {"files/list_folder": 1, "files/list_folder/continue": 2}


def test_names_keep_their_case_and_paths_ignore_it(dropbox_folder):
    """As on Dropbox itself."""
    folder = dropbox_folder(root_folder="/Partners")
    put(folder, "Incoming/Stock.CSV")
    (file,) = folder.list_files("incoming")
    assert file.path == "incoming/Stock.CSV"
    assert folder.stat("INCOMING/stock.csv").version == file.version
    assert folder.stat("Incoming/Stock.CSV").version == file.version


def test_a_folder_is_not_deleted_as_a_file(dropbox_folder):
    """Deleting is for files, although Dropbox would delete a folder with all that is in it."""
    folder = dropbox_folder()
    put(folder, "in/a")
    folder.delete("in")
    assert folder.stat("in/a") is not None


def test_a_file_replaced_while_it_is_deleted_stays(dropbox_api):
    """Only what was looked up is deleted."""

    class Overtaken(DropboxFiles):
        def stat(self, path):
            found = super().stat(path)
            (dropbox_api.files / "a").write_text("new")
            return found

    block = dropbox_api.block()
    with contextlib.closing(Overtaken(block.get_client(), system=block.system)) as folder:
        put(folder, "a", b"old")
        with pytest.raises(FileChangedError, match="delete 'a': it changed while it was to be del"):
            folder.delete("a")
    assert (dropbox_api.files / "a").read_text() == "new"


def test_a_file_dropped_in_by_hand_is_listed(dropbox_folder, dropbox_api):
    """What a person puts into the stand-in's folder is in the account."""
    (dropbox_api.files / "in").mkdir()
    (dropbox_api.files / "in" / "by hand.csv").write_text("sku")
    folder = dropbox_folder()
    (file,) = folder.list_files("in")
    with folder.open(file) as stream:
        assert stream.read() == b"sku"


def test_a_new_upload_of_equal_content_is_another_version(dropbox_folder):
    """A partner who sends the same file again has sent a new one."""
    folder = dropbox_folder()
    first = put(folder, "a")
    folder.delete("a")
    assert put(folder, "a").version != first.version


def test_a_file_deleted_and_stored_anew_meanwhile(dropbox_folder, dropbox_api):
    """Opening compares the revision, so another file of that name is refused."""
    folder = dropbox_folder()
    file = put(folder, "a", b"old")
    (dropbox_api.files / "a").unlink()
    (dropbox_api.files / "a").write_text("new")
    with pytest.raises(FileChangedError, match="read 'a': it changed since"), folder.open(file):
        pass
