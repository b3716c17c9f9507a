"""What is particular to Google Drive, against a stand-in that Google's own client can use too."""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import closing
from types import SimpleNamespace

import pytest

from blocks.errors import (
    MisconfiguredError,
    PermanentError,
    TransientError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
)
from sandbox.systems import scripted_api
from sandbox.systems.scripted_api import ScriptedReply
from tasks.core.connectors.folders.google_drive import DriveFiles

LARGE = hashlib.shake_256(b"drive").digest(20_000_001)


@pytest.fixture
def drive(google_drive_api):
    return google_drive_api


@pytest.fixture
def open_drive(google_drive_folder):
    """Opens it, and tells in `waits` how long it waited."""

    def open_it(**fields) -> DriveFiles:
        return google_drive_folder(sleep=open_it.waits.append, **fields)

    open_it.waits = []
    return open_it


@pytest.fixture
def folder(open_drive) -> DriveFiles:
    return open_drive()


def put(folder, path, content=b"content", **options):
    return folder.put(path, io.BytesIO(content), size=len(content), **options)


def test_a_cut_upload_goes_on_where_it_was(drive, folder, open_drive):
    """Of a connection cut in the middle only what was not stored is sent again."""
    drive.faults.cut_upload_after = 5_000_000
    stored = put(folder, "in/large.bin", LARGE)
    assert drive.paths() == {"in/large.bin": LARGE}
    assert stored.size == len(LARGE)
    assert drive.requests["PUT /upload/drive/v3/files"] == 1 + 1 + 3
    assert open_drive.waits == [0.5]


def test_a_lost_last_answer_is_asked_for_again(drive, folder):
    """The file was complete when the connection was cut: it exists once, and we know."""
    drive.faults.lose_answer = True
    put(folder, "a", b"whole")
    assert drive.paths() == {"a": b"whole"}


def test_busy_moments_in_an_upload_are_waited_out(drive, folder, open_drive):
    """Rate limits and broken servers in the middle cost a wait, not the upload."""
    drive.faults.refuse = (403, "userRateLimitExceeded")
    drive.faults.refuse_only = "^PUT"
    drive.faults.refuse_times = 3
    put(folder, "a", b"whole")
    assert drive.paths() == {"a": b"whole"}
    assert open_drive.waits == [0.5, 1.0]


def test_an_upload_that_never_gets_on_is_given_up(drive, folder):
    """After five failures in a row the error is one that is tried again later, and no file is."""
    drive.faults.refuse = (503, "backendError")
    drive.faults.refuse_only = "^PUT"
    with pytest.raises(TransientError):
        put(folder, "a", b"whole")
    assert drive.paths() == {}


def test_an_upload_that_is_taken_and_not_stored_ends(drive, folder):
    """A server that answers well and stores nothing does not hold a worker for ever."""
    drive.faults.stall = True
    with pytest.raises(UpstreamFailedError, match="stores nothing more"):
        put(folder, "a", b"whole")
    assert drive.requests["PUT /upload/drive/v3/files"] == 5


def test_a_session_that_ended_is_an_error_at_once(drive, folder, open_drive):
    """Its upload cannot go on, so nothing is waited for; a new attempt makes a new session."""
    drive.faults.forget_session = True
    with pytest.raises(UnreachableError, match="session has ended"):
        put(folder, "large.bin", LARGE)
    assert drive.paths() == {}


def test_damaged_content_is_noticed(drive, folder):
    """Both ways: what Drive stored, and what it gives out, is compared by digest."""
    file = put(folder, "good", b"content")
    drive.faults.damage = True
    with pytest.raises(UpstreamFailedError, match="not what was sent"):
        put(folder, "a", b"content")
    with (
        pytest.raises(UpstreamFailedError, match="damaged on its way"),
        folder.open(file) as stream,
    ):
        stream.read()


def test_overwriting_keeps_the_file_and_its_link(drive, folder):
    """A replaced report is a new revision of the same file: links that were sent stay good."""
    put(folder, "a", b"one")
    link = folder.link("a")
    put(folder, "a", b"two", overwrite=True)
    assert folder.link("a") == link
    assert drive.paths() == {"a": b"two"}


def test_two_files_of_one_name_are_not_guessed_between(drive, folder):
    """Drive allows them; which one is meant is for people to say."""
    drive.add("a", b"one")
    drive.add("a", b"two")
    with pytest.raises(PermanentError, match="2 files of that name"):
        put(folder, "a", overwrite=True)


def test_documents_without_content_are_not_listed(drive, folder):
    """What Drive edits itself cannot be downloaded as it is."""
    drive.add("Sheet", None, mime_type="application/vnd.google-apps.spreadsheet")
    drive.add("a", b"one")
    assert [file.path for file in folder.list_files("")] == ["a"]
    assert folder.stat("Sheet") is None


def test_long_listings_come_in_pages(drive, folder):
    """Every file is listed, with one request a page."""
    for number in range(2_500):
        drive.add(f"f{number}", b"")
    assert len(list(folder.list_files(""))) == 2_500
    assert drive.requests["GET /drive/v3/files"] == 3


def test_folders_are_told_apart_by_case(drive, folder, open_drive):
    """A search for a name finds it in any case; which folder is meant is not left to that."""
    put(folder, "In/a", b"upper")
    put(folder, "in/a", b"lower")
    assert drive.paths() == {"In/a": b"upper", "in/a": b"lower"}
    assert open_drive().stat("IN/a") is None


def test_a_folder_that_is_not_shared_is_named(open_drive):
    """A wrong id in the block is not taken for an empty folder."""
    with pytest.raises(MisconfiguredError, match="share it as editor"):
        list(open_drive(folder_id="another").list_files(""))


@pytest.mark.parametrize("kind", ["service_account", "authorized_user"])
def test_both_kinds_of_key_get_tokens(drive, open_drive, kind):
    """A signed assertion and a refresh token; an expired token is renewed and the call repeated."""
    folder = open_drive(credentials=drive.key(kind))
    put(folder, "a")
    drive.expire_tokens()
    put(folder, "b")
    assert sorted(drive.paths()) == ["a", "b"]


def test_a_key_that_is_none_is_ours_to_mend(drive):
    """Whatever was pasted, the error says what to paste and quotes nothing of it."""
    wrong = ["", "{}", "secret-text", '{"type": "service_account", "private_key": "secret-text"}']
    for key in [*wrong, '{"type": "external_account"}']:
        with pytest.raises(MisconfiguredError, match="key") as caught:
            drive.block(credentials=key).get_client()
        assert "secret-text" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_withdrawn_key_is_ours_to_mend(drive, open_drive):
    """The token endpoint refuses it: that does not pass by itself."""
    key = json.loads(drive.key("authorized_user"))
    folder = open_drive(credentials=json.dumps({**key, "refresh_token": "old"}))
    with pytest.raises(MisconfiguredError, match="key was revoked"):
        folder.stat("a")


def test_a_dead_token_endpoint_may_pass(drive, open_drive):
    """No answer there is no fault of the key."""
    key = json.loads(drive.key("authorized_user"))
    folder = open_drive(credentials=json.dumps({**key, "token_uri": "http://127.0.0.1:1/token"}))
    with pytest.raises(UnreachableError, match="token endpoint"):
        folder.stat("a")


def test_a_token_endpoint_that_is_broken_may_pass(open_drive, drive, monkeypatch):
    """What Google calls its own fault is no fault of the key."""
    from google.auth import _exponential_backoff

    monkeypatch.setattr(_exponential_backoff, "time", SimpleNamespace(sleep=lambda _s: None))
    key = json.loads(drive.key("authorized_user"))
    with scripted_api.start() as broken:
        broken.answer(*[ScriptedReply({"error": "internal_failure"}, status=503)] * 3)
        folder = open_drive(credentials=json.dumps({**key, "token_uri": f"{broken.url}/token"}))
        with pytest.raises(UpstreamFailedError, match="token endpoint"):
            folder.stat("a")


@pytest.mark.parametrize(
    ("refuse", "error", "says"),
    [
        ((403, "userRateLimitExceeded"), UpstreamBusyError, "fewer requests"),
        ((429, "rateLimitExceeded"), UpstreamBusyError, "429"),
        ((500, "backendError"), UpstreamFailedError, "500"),
        ((403, "dailyLimitExceeded"), UpstreamBusyError, "daily quota"),
        ((403, "storageQuotaExceeded"), PermanentError, "no room"),
        ((403, "insufficientFilePermissions"), MisconfiguredError, "permission"),
        ((404, "notFound"), MisconfiguredError, "share it as editor"),
    ],
)
def test_refusals_say_what_to_do(drive, folder, refuse, error, says):
    """Busy and broken is tried again; what must be mended says how."""
    drive.faults.refuse = refuse
    with pytest.raises(error, match=says):
        put(folder, "a")


def test_an_upload_goes_nowhere_else(drive, folder):
    """A session at another address would get our token."""
    drive.faults.session_url = "http://elsewhere.example"
    with pytest.raises(UpstreamFailedError, match="another address"):
        put(folder, "a")


def test_googles_own_client_agrees_with_the_stand_in(drive, folder):
    """The stand-in speaks the protocol of the real API as Google's client speaks it."""
    from google.oauth2.credentials import Credentials
    from googleapiclient import discovery, discovery_cache
    from googleapiclient.http import MediaIoBaseDownload, MediaIoBaseUpload

    key = json.loads(drive.key("authorized_user"))
    key.pop("type")
    description = json.loads(discovery_cache.get_static_doc("drive", "v3"))
    description |= {"rootUrl": f"{drive.url}/", "baseUrl": f"{drive.url}/drive/v3/"}
    api = discovery.build_from_document(
        description,
        credentials=Credentials(None, **key),
        client_options={"api_endpoint": f"{drive.url}/drive/v3/"},
    )
    with closing(api):
        media = MediaIoBaseUpload(
            io.BytesIO(LARGE), "application/octet-stream", chunksize=1 << 22, resumable=True
        )
        made = api.files().create(
            body={"name": "theirs.bin", "parents": [drive.root_id]}, media_body=media
        )
        file_id = made.execute()["id"]
        drive.faults.refuse = (403, "userRateLimitExceeded")
        drive.faults.refuse_times = 1
        found = api.files().list(q="name = 'theirs.bin' and trashed = false")
        assert [entry["id"] for entry in found.execute(num_retries=1)["files"]] == [file_id]
        received = io.BytesIO()
        download = MediaIoBaseDownload(
            received, api.files().get_media(fileId=file_id), chunksize=1 << 22
        )
        while not download.next_chunk()[1]:
            pass
    assert received.getvalue() == LARGE
    file = folder.stat("theirs.bin")
    assert file is not None
    with folder.open(file) as stream:
        assert stream.read() == LARGE
