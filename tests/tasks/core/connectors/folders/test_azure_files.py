"""What is particular to Azure Files: Microsoft's own client against a stand-in on the loopback."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from blocks.errors import (
    IntegrationError,
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
)
from sandbox.systems import azure_files_api
from tasks.core.connectors.folders.azure_files import AzureFiles
from tasks.core.connectors.folders.protocol import FileChangedError, TargetExistsError

NOW = datetime(2026, 7, 23, tzinfo=UTC)
LARGE = hashlib.shake_256(b"azure").digest(10_000_001)


@pytest.fixture
def azure(azure_files_api):
    return azure_files_api


@pytest.fixture
def open_share(azure_files_folder):
    return azure_files_folder


@pytest.fixture
def folder(open_share) -> AzureFiles:
    return open_share()


def put(folder, path, content=b"content", **options):
    return folder.put(path, io.BytesIO(content), size=len(content), **options)


def test_a_large_file_is_sent_in_checked_ranges(azure, folder):
    """10 MB go up in ranges of 4 MiB under a hidden name and appear whole."""
    put(folder, "reports/2026/large.bin", LARGE)
    assert azure.files == {"reports/2026/large.bin": LARGE}
    assert azure.requests["PUT range"] == 3
    assert azure.requests["PUT rename"] == 1


def test_a_cut_upload_leaves_nothing(azure, folder):
    """The connection is cut at the second range: the error may pass, and no half file is there."""
    put(folder, "large.bin", b"last week's")
    azure.faults.cut_range = azure.requests["PUT range"] + 2
    with pytest.raises(UnreachableError):
        put(folder, "large.bin", LARGE, overwrite=True)
    assert azure.files == {"large.bin": b"last week's"}
    azure.faults.cut_range = None
    put(folder, "large.bin", LARGE, overwrite=True)
    assert azure.files == {"large.bin": LARGE}


def test_names_ignore_case(folder):
    """As on every Windows share, a name that differs in case is the same file."""
    put(folder, "In/Report.csv")
    with pytest.raises(TargetExistsError):
        put(folder, "in/REPORT.csv")
    put(folder, "IN/other.csv")
    assert sorted(file.name for file in folder.list_files("in")) == ["Report.csv", "other.csv"]
    folder.delete("iN/report.csv")
    assert [file.path for file in folder.list_files("", recursive=True)] == ["In/other.csv"]


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a:b", "a|b", "a<b", "a*b", "a?b", "a\nb", "a."])
def test_names_that_no_share_can_hold_are_refused(azure, folder, name):
    """The error names the character; nothing is sent."""
    with pytest.raises(PermanentError, match="cannot hold"):
        put(folder, name)
    assert not azure.requests


def test_damage_on_the_way_is_noticed(azure, folder):
    """What is read is compared with the digest that the service gives for each range."""
    file = put(folder, "a", LARGE)
    azure.faults.damage = True
    with pytest.raises(IntegrationError), folder.open(file) as stream:
        stream.read()


def test_what_is_read_is_compared_with_what_was_listed(azure, folder):
    """The version that counts is that of the content that comes, not of a look before it."""
    put(folder, "in/a", b"the old one")
    put(folder, "in/empty", b"")
    listed, empty = sorted(folder.list_files("in"), key=lambda file: file.path)
    asked = azure.requests["HEAD file"]
    for file, content in ((listed, b"the old one"), (empty, b"")):
        with folder.open(file) as stream:
            assert stream.read() == content
    assert azure.requests["HEAD file"] == asked
    put(folder, "in/a", b"the new one", overwrite=True)
    with pytest.raises(FileChangedError, match="it changed"), folder.open(listed):
        pass
    folder.delete("in/empty")
    for path in ("in/empty", "no/such", "in"):
        with (
            pytest.raises(FileChangedError, match="it vanished"),
            folder.open(replace(empty, path=path)),
        ):
            pass


def test_all_paths_start_at_the_root_folder(azure, open_share):
    """A block can be kept to one folder of the share."""
    put(open_share(root_folder="/partners/acme/"), "in/a")
    assert list(azure.files) == ["partners/acme/in/a"]


def test_a_refusal_without_a_body_is_told_once(azure, folder, caplog):
    """The error says it; Microsoft's library does not log a traceback of its own beside it."""
    azure.faults.refuse = (503, "ServerBusy")
    with pytest.raises(UpstreamBusyError):
        folder.stat("a")
    assert caplog.records == []


def test_long_listings_come_in_pages(azure, folder):
    """Every file is listed, with one request a page."""
    for number in range(1_200):
        azure._files[f"f{number}"] = azure_files_api._File(bytearray(), '"0x1"', NOW)
    assert len(list(folder.list_files(""))) == 1_200
    assert azure.requests["GET list"] == 2


@pytest.mark.parametrize(
    ("refuse", "error", "says"),
    [
        ((503, "ServerBusy"), UpstreamBusyError, "503"),
        ((500, "InternalError"), UpstreamFailedError, "500"),
        ((409, "SharingViolation"), UpstreamBusyError, "another program has it open"),
        ((413, "ShareSizeLimitReached"), PermanentError, "no room"),
        ((403, "AuthorizationFailure"), MisconfiguredError, "key or signature"),
        ((404, "ShareNotFound"), MisconfiguredError, "no such share"),
    ],
)
def test_refusals_say_what_to_do(azure, folder, refuse, error, says):
    """Busy and broken is tried again; what must be mended says how. It holds for every call."""
    file = put(folder, "a")
    azure.faults.refuse = refuse
    for call in (
        lambda: put(folder, "b"),
        lambda: folder.stat("a"),
        lambda: folder.move("a", "b"),
        lambda: folder.delete("a"),
        lambda: list(folder.list_files("")),
        lambda: folder.open(file).__enter__(),
    ):
        with pytest.raises(error, match=says):
            call()


def test_a_wrong_key_is_ours_to_mend(azure, open_share):
    """The stand-in checks signatures as the service does; the key is not in the error."""
    wrong = base64.b64encode(b"wrong").decode()
    with pytest.raises(MisconfiguredError, match="AuthenticationFailed") as caught:
        open_share(account_key=wrong).stat("a")
    assert wrong not in str(caught.value)


def test_a_share_that_is_not_there_is_named(open_share):
    """A typing error in the block is not taken for an empty folder."""
    with pytest.raises(MisconfiguredError, match="no such share"):
        open_share(share="other").stat("a")


def test_a_dead_service_is_unreachable(open_share):
    """Nobody listens: that may pass."""
    with pytest.raises(UnreachableError):
        open_share(endpoint_url="http://127.0.0.1:1/sandbox").stat("a")


@pytest.mark.parametrize("fields", [{"account_key": None}, {"sas_token": "?sig=x"}])
def test_exactly_one_way_to_log_in(azure, fields):
    """A block without a key, or with two, is refused."""
    with pytest.raises(ValidationError, match="either"):
        azure.block(**fields)
