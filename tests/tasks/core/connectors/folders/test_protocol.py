"""What every place promises, shown on each over its real protocol."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from blocks.errors import MisconfiguredError, PermanentError
from tasks.core.connectors.folders.protocol import FileChangedError, TargetExistsError

ODD_NAMES = [
    "with space.csv",
    "umläut-日本-🎈.csv",
    'quote\'s "and" `more`.csv',
    "new\nline.csv",
    "100%25.csv",
    "plus+and&amp;.csv",
    "#hash?query=1.csv",
    "back\\slash.csv",
    "-dash.csv",
    "..hidden.csv",
]


def put(folder, path, content=b"content", **options):
    return folder.put(path, io.BytesIO(content), size=len(content), **options)


def read(folder, file):
    with folder.open(file) as stream:
        return stream.read()


def paths(folder, name="", **options):
    return sorted(file.path for file in folder.list_files(name, **options))


def test_what_is_put_is_listed_looked_up_and_read(folder):
    """A stored file has the same description in a listing, a look-up and the answer to put."""
    stored = put(folder, "incoming/stock.csv", b"sku;quantity\n")

    (listed,) = folder.list_files("incoming")
    assert listed.path == "incoming/stock.csv"
    assert listed.name == "stock.csv"
    assert listed.size == 13
    assert listed.version == stored.version == folder.stat("incoming/stock.csv").version
    assert read(folder, listed) == b"sku;quantity\n"


def test_modification_times_are_aware_and_utc(folder):
    """A file just put was modified now, told in UTC."""
    before = datetime.now(UTC) - timedelta(seconds=2)
    put(folder, "a")
    (file,) = folder.list_files("")
    assert file.modified_at.utcoffset() == timedelta(0)
    assert before <= file.modified_at <= datetime.now(UTC) + timedelta(seconds=2)


def test_a_listing_shows_the_folder_and_not_those_below(folder):
    """Only files that are directly in the folder are listed."""
    for path in ("a", "in/b", "in/c", "in/deep/er/d", "inside/e"):
        put(folder, path)
    assert paths(folder) == ["a"]
    assert paths(folder, "in") == paths(folder, "in/") == ["in/b", "in/c"]


def test_a_recursive_listing_shows_all_below(folder):
    """Files of all folders below are listed, with their full path."""
    for path in ("a", "in/b", "in/deep/er/d", "inside/e"):
        put(folder, path)
    assert paths(folder, recursive=True) == ["a", "in/b", "in/deep/er/d", "inside/e"]
    assert paths(folder, "in", recursive=True) == ["in/b", "in/deep/er/d"]


def test_the_root_can_be_named_in_three_ways(folder):
    """The root is "", "." or "/"."""
    put(folder, "a")
    assert paths(folder, "") == paths(folder, ".") == paths(folder, "/") == ["a"]


def refuses_by_name(folder, path):
    """Each operation says that the place cannot hold such a name."""
    put(folder, "a")
    file = folder.stat("a")
    for operation in (
        lambda: put(folder, path),
        lambda: folder.stat(path),
        lambda: read(folder, replace(file, path=path)),
        lambda: folder.move("a", path),
        lambda: folder.move(path, "b"),
        lambda: folder.delete(path),
        lambda: list(folder.list_files(path)),
    ):
        with pytest.raises(PermanentError, match=r"cannot hold .* in a name; use another name"):
            operation()
    assert paths(folder, recursive=True) == ["a"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_work_everywhere(folder, name):
    """Spaces, quotes, newlines, Unicode and URL characters in names survive every operation.

    Azure Files cannot hold some of them, and refuses those before anything is sent.
    """
    if name == "new\nline.csv" and folder.system.startswith("s3:"):
        pytest.skip("the S3 stand-in has no route for a newline; see test_s3")
    if set(name) & set('"\\?\n') and folder.system.startswith("azure-files:"):
        refuses_by_name(folder, f"in/{name}")
        return
    put(folder, f"in/{name}", b"odd")
    (file,) = folder.list_files("in")
    assert file.path == f"in/{name}"
    assert read(folder, file) == b"odd"
    folder.move(file.path, f"done/{name}")
    assert folder.stat(file.path) is None
    folder.delete(f"done/{name}")
    assert folder.stat(f"done/{name}") is None


@pytest.mark.parametrize("path", ["../up", "a/../../up", "/etc/passwd", "a\0b", "", ".", "a\udc80"])
def test_a_path_that_leaves_the_place_is_refused(folder, path):
    """Absolute paths, "..", NUL and the root itself are refused by every operation on a file."""
    put(folder, "a")
    file = folder.stat("a")
    moved = type(file)(path, file.size, file.modified_at, file.version)
    for operation in (
        lambda: folder.stat(path),
        lambda: folder.open(moved).__enter__(),
        lambda: put(folder, path),
        lambda: folder.move("a", path),
        lambda: folder.move(path, "b"),
        lambda: folder.delete(path),
    ):
        with pytest.raises(PermanentError, match=r"^\S+: [\w ]+ '.*': the path .*without '\.\.'$"):
            operation()


def test_a_folder_that_leaves_the_place_is_refused(folder):
    """A listing cannot climb out either."""
    with pytest.raises(PermanentError, match="leads out of its folder"):
        list(folder.list_files("../other"))


def test_a_large_file_survives_the_round_trip(folder):
    """20 MB, more than any window or part, come back unchanged, read in uneven steps."""
    content = hashlib.shake_256(b"seed").digest(20_000_001)
    file = put(folder, "large.bin", content)
    assert file.size == len(content)
    digest = hashlib.sha256()
    with folder.open(file) as stream:
        digest.update(stream.readline())
        while piece := stream.read(777_777):
            digest.update(piece)
    assert digest.digest() == hashlib.sha256(content).digest()


def test_an_empty_file_survives_the_round_trip(folder):
    """Zero bytes are a file."""
    file = put(folder, "empty")
    assert put(folder, "empty", b"", overwrite=True).size == 0
    (file,) = folder.list_files("")
    assert read(folder, file) == b""


def test_a_reader_may_stop_early(folder):
    """Closing a stream in the middle does no harm to what comes next."""
    file = put(folder, "large.bin", bytes(12_000_000))
    with folder.open(file) as stream:
        assert stream.read(3) == b"\0\0\0"
    assert folder.stat("large.bin").version == file.version


def test_put_does_not_overwrite_unasked(folder):
    """An existing file stays as it is, and nothing is left beside it."""
    put(folder, "in/a", b"first")
    for content in (b"second", b"first", bytes(9_000_000)):
        with pytest.raises(TargetExistsError, match=r"put 'in/a': there is a file of that name"):
            put(folder, "in/a", content)
    assert paths(folder, "in") == ["in/a"]
    assert read(folder, folder.stat("in/a")) == b"first"


def test_put_overwrites_when_asked(folder):
    """The new content has another version."""
    first = put(folder, "a", b"first")
    second = put(folder, "a", b"number two", overwrite=True)
    assert second.version != first.version
    assert read(folder, second) == b"number two"
    assert paths(folder) == ["a"]


@pytest.mark.parametrize("announced", [4, 8, 9_000_000])
def test_content_of_another_size_never_appears(folder, announced):
    """Content that is shorter or longer than announced leaves no file behind."""
    with pytest.raises(PermanentError, match=rf"announced {announced:,} bytes, at .* still being"):
        folder.put("in/a", io.BytesIO(b"six by"), size=announced)
    assert folder.stat("in/a") is None
    put(folder, "in/other")
    assert paths(folder, "in") == ["in/other"]


def test_a_source_that_fails_leaves_no_file(folder):
    """When reading the content fails, nothing appears at the target."""

    class Broken(io.RawIOBase):
        reads = 0

        def read(self, size=-1):
            self.reads += 1
            if self.reads > 2:
                raise ValueError("broken source")
            return bytes(size)

    with pytest.raises(ValueError, match="broken source"):
        folder.put("in/a", Broken(), size=100_000_000)
    put(folder, "in/other")
    assert paths(folder, "in") == ["in/other"]


def test_move_makes_folders_and_keeps_content(folder):
    """A moved file is at its target only."""
    put(folder, "in/a", b"content")
    folder.move("in/a", "archive/2026/03/a")
    assert folder.stat("in/a") is None
    assert read(folder, folder.stat("archive/2026/03/a")) == b"content"


def test_move_does_not_overwrite_unasked(folder):
    """A file at the target stays, and so does the source."""
    put(folder, "a", b"mine")
    put(folder, "b", b"theirs")
    with pytest.raises(TargetExistsError, match="move 'a': there is a file"):
        folder.move("a", "b")
    assert read(folder, folder.stat("a")) == b"mine"
    assert read(folder, folder.stat("b")) == b"theirs"


def test_move_overwrites_when_asked(folder):
    """The target then has the source's content."""
    put(folder, "a", b"mine")
    put(folder, "b", b"theirs")
    folder.move("a", "b", overwrite=True)
    assert paths(folder) == ["b"]
    assert read(folder, folder.stat("b")) == b"mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_move_of_a_file_to_itself_leaves_it(folder, overwrite):
    """However the path is written: there is nothing to do, and nothing is deleted."""
    put(folder, "in/a", b"content")
    for target in ("in/a", "./in//a"):
        folder.move("in/a", target, overwrite=overwrite)
        assert read(folder, folder.stat("in/a")) == b"content"


def test_moving_what_is_gone_says_so(folder):
    """The message tells that somebody was faster."""
    put(folder, "other")
    for target in ("done/gone", "gone"):
        with pytest.raises(FileChangedError, match="move 'gone': it vanished since it was listed"):
            folder.move("gone", target)


def test_deleting_what_is_gone_is_no_error(folder):
    """Delete may be repeated."""
    put(folder, "in/a")
    folder.delete("in/a")
    folder.delete("in/a")
    folder.delete("never/was")
    assert folder.stat("in/a") is None


def test_looking_up_what_is_not_there(folder):
    """A missing file, a missing folder and a folder are all None."""
    put(folder, "in/a")
    assert folder.stat("b") is None
    assert folder.stat("no/b") is None
    assert folder.stat("in") is None


def test_a_missing_folder_is_ours_to_mend(folder):
    """The message names the folder and what to do; S3 knows no folders and lists nothing."""
    if folder.system.startswith("s3:"):
        assert list(folder.list_files("no/such")) == []
        return
    with pytest.raises(MisconfiguredError, match="list 'no/such': there is no such folder; "):
        list(folder.list_files("no/such"))


def test_a_file_that_vanished_between_listing_and_opening(folder):
    """Opening says that the file is gone, as a matter of the file and not of the place."""
    file = put(folder, "a")
    empty = put(folder, "empty", b"")
    folder.delete("a")
    folder.delete("empty")
    for gone in (file, empty):
        with pytest.raises(FileChangedError, match=rf"read '{gone.path}': it (vanished|changed)"):
            read(folder, gone)


def test_a_file_that_changed_between_listing_and_opening(folder):
    """Opening refuses content that is not what was listed."""
    file = put(folder, "a", b"old")
    put(folder, "a", b"changed", overwrite=True)
    with pytest.raises(FileChangedError, match="read 'a': it changed since it was listed; the nex"):
        read(folder, file)


def test_errors_name_the_place_and_hold_no_secret(folder):
    """Operators see which system, which operation, which file."""
    with pytest.raises(FileChangedError) as caught:
        folder.move("gone", "x")
    assert str(caught.value).startswith(f"{folder.system}: move 'gone': ")
    assert "sandbox-refresh" not in str(caught.value)
