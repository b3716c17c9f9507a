"""What only a folder of this machine can do wrong, and what the operator then reads."""

from __future__ import annotations

import contextlib
import errno
import io
import os

import pytest

from blocks.errors import (
    MisconfiguredError,
    PermanentError,
    TransientError,
    UnreachableError,
    UpstreamFailedError,
)
from tasks.core.connectors.folders.local import LocalFiles
from tasks.core.connectors.folders.protocol import FileChangedError


@pytest.fixture
def root(local_folder, tmp_path):
    return tmp_path / "drop"


@pytest.fixture
def nobody(tmp_path):
    """The tests go on as a user who owns nothing, if they run as root."""
    if os.geteuid() != 0:
        yield contextlib.nullcontext
        return

    @contextlib.contextmanager
    def as_nobody():
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    for folder in tmp_path.parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o711)
    yield as_nobody


def put(folder, path, content=b"content", **options):
    return folder.put(path, io.BytesIO(content), size=len(content), **options)


def test_a_folder_that_may_not_be_read(local_folder, root, nobody):
    """The message says for whom to open it."""
    put(local_folder, "in/a")
    (root / "in").chmod(0o000)
    with nobody(), pytest.raises(MisconfiguredError) as caught:
        list(local_folder.list_files("in"))
    (root / "in").chmod(0o700)
    assert str(caught.value) == (
        f"file://{root}: list 'in': no permission (Permission denied); let the user that runs the "
        "flows read and write there"
    )


def test_a_folder_that_may_not_be_written(local_folder, root, nobody):
    """Every change is refused with the same message, each naming its operation."""
    file = put(local_folder, "in/a")
    (root / "in").chmod(0o555)
    for operation, change in {
        "put": lambda: put(local_folder, "in/b"),
        "move": lambda: local_folder.move("in/a", "in/c"),
        "delete": lambda: local_folder.delete("in/a"),
    }.items():
        with nobody(), pytest.raises(MisconfiguredError, match=f": {operation} .*no permission"):
            change()
    (root / "in").chmod(0o700)
    assert local_folder.stat("in/a") == file


def test_a_full_disk(tiny_disk):
    """The message says where to make room, and nothing is left of the file."""
    folder = LocalFiles(tiny_disk, system="file:///exchange")
    with pytest.raises(PermanentError) as caught:
        put(folder, "in/a", bytes(3_000_000))
    assert str(caught.value) == (
        "file:///exchange: put 'in/a': no room (No space left on device); make room on that disk"
    )
    assert list((tiny_disk / "in").iterdir()) == []


def test_a_move_to_another_disk(tiny_disk, tmp_path):
    """A folder below the root that is another disk cannot be moved to in one step."""
    folder = LocalFiles(tmp_path, system="file:///exchange")
    put(folder, "a")
    with pytest.raises(PermanentError, match="are on different disks; keep both on one"):
        folder.move("a", "disk/a")
    assert folder.stat("a") is not None


def test_a_symbolic_link_does_not_lead_out(local_folder, root, tmp_path):
    """Links are not listed, not read, and no way out of the root."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    put(local_folder, "a")
    (root / "out").symlink_to(secret)
    (root / "key").symlink_to(secret / "key")
    assert [file.path for file in local_folder.list_files("", recursive=True)] == ["a"]
    assert local_folder.stat("key") is None
    for operation in (
        lambda: local_folder.stat("out/key"),
        lambda: list(local_folder.list_files("out/")),
        lambda: put(local_folder, "out/new"),
        lambda: local_folder.move("a", "out/a"),
        lambda: local_folder.delete("out/key"),
    ):
        with pytest.raises(PermanentError, match="a symbolic link leads out of the folder"):
            operation()
    assert sorted(path.name for path in secret.iterdir()) == ["key"]


def test_a_file_swapped_for_a_link_is_not_opened(local_folder, root):
    """Between listing and opening nobody can slip in a link."""
    file = put(local_folder, "a")
    (root / "a").unlink()
    (root / "a").symlink_to("/etc/hostname")
    with pytest.raises(PermanentError, match="Too many levels"), local_folder.open(file):
        pass


def test_the_root_itself_may_be_a_link(local_folder, root, tmp_path):
    """Operators may point the block at a link to the real folder."""
    put(local_folder, "a")
    (tmp_path / "link").symlink_to(root)
    folder = LocalFiles(tmp_path / "link", system="file:///link")
    assert [file.path for file in folder.list_files("")] == ["a"]


def test_a_missing_root(tmp_path):
    """The message names the root."""
    folder = LocalFiles(tmp_path / "nowhere", system="file:///nowhere")
    with pytest.raises(MisconfiguredError) as caught:
        list(folder.list_files(""))
    assert str(caught.value) == (
        "file:///nowhere: list '.': there is no such folder; make it, or correct its name"
    )


def test_a_name_that_is_not_utf8_does_not_stop_a_listing(local_folder, root, caplog):
    """It is left out with a warning that shows its bytes; all others are listed."""
    put(local_folder, "good")
    (root / os.fsdecode(b"Gr\xf6\xdfe.csv")).touch()
    assert [file.path for file in local_folder.list_files("")] == ["good"]
    assert "left out the name b'Gr\\xf6\\xdfe.csv'" in caplog.text


def test_a_file_that_grows_while_it_is_read(local_folder, root):
    """The end is not believed when the file is no longer the one that was listed."""
    file = put(local_folder, "a", bytes(100_000))
    with local_folder.open(file) as stream:
        with (root / "a").open("ab") as growing:
            growing.write(b"more")
        with pytest.raises(FileChangedError, match="read 'a': it changed since it was listed"):
            stream.read()


def test_a_file_of_equal_size_and_time_is_still_another(local_folder, root):
    """The version knows one file from another that was put in its place."""
    first = put(local_folder, "a", b"12345")
    times = (root / "a").stat()
    put(local_folder, "a", b"54321", overwrite=True)
    os.utime(root / "a", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert local_folder.stat("a").version != first.version


def test_a_move_that_was_interrupted_is_completed(local_folder, root):
    """With both names of one file there, moving again ends with the new one only."""
    put(local_folder, "a")
    os.link(root / "a", root / "b")
    local_folder.move("a", "b")
    assert [file.path for file in local_folder.list_files("")] == ["b"]


def test_a_move_to_itself_over_a_link_to_its_folder_leaves_it(local_folder, root):
    """Two paths of one and the same name are known as one: nothing is deleted."""
    put(local_folder, "in/a")
    (root / "also").symlink_to(root / "in")
    local_folder.move("in/a", "also/a")
    assert local_folder.stat("in/a") is not None


def test_a_folder_is_not_moved_as_a_file(local_folder):
    """Move is for files."""
    put(local_folder, "in/a")
    with pytest.raises(PermanentError, match="move 'in': it is not a file"):
        local_folder.move("in", "done")


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ESTALE, UpstreamFailedError, "the disk failed (Stale file handle)"),
        (errno.EIO, UpstreamFailedError, "the disk failed (Input/output error)"),
        (errno.ETIMEDOUT, UnreachableError, "the disk does not answer (Connection timed out); is"),
        (errno.EDQUOT, PermanentError, "no room (Disk quota exceeded); make room on that disk"),
    ],
)
def test_a_network_disk_that_fails(local_folder, number, kind, message):
    """What may pass is worth trying again; a full quota is not."""

    class Failing(io.BytesIO):
        def read(self, size=-1):
            raise OSError(number, os.strerror(number))

    with pytest.raises(kind) as caught:
        local_folder.put("a", Failing(), size=1)
    assert message in str(caught.value)
    assert isinstance(caught.value, TransientError) == (number != errno.EDQUOT)
