"""The stand-in answers the real SDK as Dropbox does, beyond what the folder protocol uses."""

from __future__ import annotations

import hashlib
import threading
import urllib.request

import pytest
from dropbox import files
from dropbox.exceptions import ApiError

from sandbox.systems import dropbox_api as sandbox


@pytest.fixture
def client(dropbox_api):
    with dropbox_api.block().get_client() as client:
        yield client


def changes(client, cursor):
    entries = []
    while True:
        page = client.files_list_folder_continue(cursor)
        entries += page.entries
        cursor = page.cursor
        if not page.has_more:
            return entries, cursor


def test_a_cursor_tells_what_changed_and_what_is_gone(client, dropbox_api):
    """New, changed and deleted files each show once, in pages."""
    for name in ("stays", "changes", "goes"):
        client.files_upload(b"1", f"/{name}")
    cursor = client.files_list_folder("").cursor
    client.files_upload(b"2", "/changes", mode=files.WriteMode.overwrite)
    client.files_delete_v2("/goes")
    (dropbox_api.files / "by hand").write_text("3")
    dropbox_api.faults.page_entries = 1
    entries, cursor = changes(client, cursor)
    assert {(type(entry).__name__, entry.name) for entry in entries} == {
        ("FileMetadata", "changes"),
        ("FileMetadata", "by hand"),
        ("DeletedMetadata", "goes"),
    }
    assert changes(client, cursor)[0] == []


def test_a_cursor_can_start_now(client):
    """What was there before is not told."""
    client.files_upload(b"1", "/before")
    cursor = client.files_list_folder_get_latest_cursor("").cursor
    client.files_upload(b"1", "/after")
    entries, _ = changes(client, cursor)
    assert [entry.name for entry in entries] == ["after"]


def test_a_long_poll_wakes_when_something_changes(client, dropbox_api):
    """It answers as soon as there is a change."""
    cursor = client.files_list_folder_get_latest_cursor("").cursor
    answers = []
    poll = threading.Thread(
        target=lambda: answers.append(client.files_list_folder_longpoll(cursor, timeout=30))
    )
    poll.start()
    (dropbox_api.files / "new").write_text("1")
    poll.join(20)
    assert [answer.changes for answer in answers] == [True]


def test_a_cursor_from_before_a_restart_is_reset(tmp_path):
    """Files survive a restart; cursors do not, as the API allows."""
    with sandbox.start(tmp_path) as running, running.block().get_client() as client:
        client.files_upload(b"kept", "/in/a")
        cursor = client.files_list_folder("/in").cursor
    with sandbox.start(tmp_path) as running, running.block().get_client() as client:
        assert client.files_download("/in/a")[1].content == b"kept"
        with pytest.raises(ApiError) as caught:
            client.files_list_folder_continue(cursor)
        assert caught.value.error.is_reset()


def test_an_upload_session_says_where_it_stands(client):
    """A wrong offset is answered with the right one, and appending there goes on."""
    session = client.files_upload_session_start(b"12345")
    cursor = files.UploadSessionCursor(session.session_id, 3)
    with pytest.raises(ApiError) as caught:
        client.files_upload_session_append_v2(b"678", cursor)
    cursor.offset = caught.value.error.get_incorrect_offset().correct_offset
    client.files_upload_session_append_v2(b"678", cursor)
    cursor.offset += 3
    client.files_upload_session_finish(b"9", cursor, files.CommitInfo("/a"))
    assert client.files_download("/a")[1].content == b"123456789"


def test_a_wrong_content_hash_is_refused(client):
    """What was damaged on its way in is not stored."""
    with pytest.raises(ApiError) as caught:
        client.files_upload(b"content", "/a", content_hash="0" * 64)
    assert caught.value.error.is_content_hash_mismatch()
    assert client.files_list_folder("").entries == []


def test_the_content_hash_is_dropbox_s_own(client):
    """The hash of the hashes of blocks of 4 MiB."""
    content = bytes(5 * 1024 * 1024)
    blocks = (content[: 4 * 1024 * 1024], content[4 * 1024 * 1024 :])
    expected = hashlib.sha256(b"".join(hashlib.sha256(block).digest() for block in blocks))
    assert client.files_upload(content, "/a").content_hash == expected.hexdigest()


def test_conflicts_follow_the_write_mode(client):
    """Equal content is no conflict unless strict, other content is, and a rename avoids it."""
    first = client.files_upload(b"1", "/a.csv")
    assert client.files_upload(b"1", "/A.csv").rev == first.rev
    for options in ({"strict_conflict": True}, {}):
        with pytest.raises(ApiError) as caught:
            client.files_upload(b"1" if options else b"2", "/a.csv", **options)
        assert caught.value.error.get_path().reason.is_conflict()
    assert client.files_upload(b"2", "/a.csv", autorename=True).name.startswith("a (")
    update = files.WriteMode.update(first.rev)
    assert client.files_upload(b"3", "/a.csv", mode=update).rev != first.rev
    with pytest.raises(ApiError):
        client.files_upload(b"4", "/a.csv", mode=update)


def test_copying_folders_and_temporary_links(client):
    """The rest of what integrations use."""
    client.files_create_folder_v2("/in")
    client.files_upload(b"1", "/in/a")
    client.files_copy_v2("/in/a", "/in/b")
    with pytest.raises(ApiError) as caught:
        client.files_copy_v2("/in/a", "/in/b")
    assert caught.value.error.get_to().is_conflict()
    link = client.files_get_temporary_link("/in/b").link
    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"1"
    client.files_delete_v2("/in")
    assert client.files_list_folder("").entries == []
    assert client.users_get_current_account().email == "ada@example.com"
    assert client.users_get_space_usage().allocation.get_individual().allocated > 0
