"""What only SFTP can do wrong, and what the operator then reads."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import stat

import asyncssh
import pytest

from blocks.errors import MisconfiguredError, PermanentError, UnreachableError
from tasks.core.connectors.folders.protocol import FileChangedError, TargetExistsError
from tasks.core.connectors.folders.sftp import SftpFiles

CUT = (
    "the connection was cut; if trying again does not help, ask the partner whether their server "
    "or firewall ends it"
)


def put(folder, path, content=b"content", **options):
    return folder.put(path, io.BytesIO(content), size=len(content), **options)


def message(caught):
    return caught.value.message


def test_an_unknown_host_key_stops_everything(sftp_folder, sftp_server):
    """The message shows the key that was offered and asks for a confirmation by the partner."""
    with pytest.raises(MisconfiguredError) as caught:
        list(sftp_folder(known_hosts="").list_files(""))
    key = sftp_server.known_hosts.partition(" ")[2]
    fingerprint = asyncssh.import_public_key(key).get_fingerprint()
    assert message(caught) == (
        "the server is not the one that the block's known hosts name (it showed "
        f"{fingerprint}, {key}). If the partner confirms that this key is theirs, put it into the "
        "block's known hosts"
    )
    assert caught.value.operation == "connect"
    assert "sandbox" not in str(caught.value)  # the password was not even sent


@pytest.mark.parametrize("key_type", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_a_changed_host_key_stops_everything(sftp_folder, key_type):
    """Another key than the known one is as bad as none, whatever its type."""
    other = asyncssh.generate_private_key(key_type).export_public_key().decode()
    with pytest.raises(MisconfiguredError, match="not the one that the block"):
        list(sftp_folder(known_hosts=other).list_files(""))


def test_any_host_key_is_taken_only_when_that_is_switched_on(sftp_folder):
    """The explicit switch connects without a known key."""
    assert list(sftp_folder(known_hosts="", trust_any_host_key=True).list_files("")) == []


@pytest.mark.parametrize("wrong", [{"username": "stranger"}, {"password": "guessed"}])
def test_wrong_credentials(sftp_folder, wrong):
    """The message says what to check, and holds neither password nor key."""
    with pytest.raises(MisconfiguredError) as caught:
        list(sftp_folder(**wrong).list_files(""))
    assert message(caught) == (
        "the server refused the log-in; check user name, password and key in the block, and with "
        "the partner whether they are still valid"
    )
    assert "guessed" not in str(caught.value)


def test_a_stranger_s_key(sftp_folder):
    """A well-formed key that the server does not know is refused like a wrong password."""
    stranger = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    with pytest.raises(MisconfiguredError, match="the server refused the log-in"):
        list(sftp_folder(password=None, private_key=stranger).list_files(""))


def test_nobody_listens(sftp_folder):
    """A refused connection is worth trying again, and the message says what to look at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UnreachableError, match="are host and port right") as caught:
        list(sftp_folder(port=port).list_files(""))
    assert caught.value.operation == "connect"


def test_a_name_without_address(sftp_folder):
    """A host name that does not resolve is told apart from a server that is down."""
    with pytest.raises(UnreachableError, match="no address for the server's name; is the host"):
        list(sftp_folder(host="sftp.invalid").list_files(""))


def test_a_server_that_never_answers(sftp_folder, sftp_server, fault_proxy):
    """A connection that opens and stays silent is given up after the connect time-out."""
    proxy = fault_proxy(sftp_server.port)
    proxy.swallow = True
    folder = sftp_folder(port=proxy.port, known_hosts=any_port(sftp_server), connect_timeout_s=0.2)
    with pytest.raises(UnreachableError, match="no answer in time; is the server up, and are"):
        list(folder.list_files(""))


@pytest.mark.parametrize(
    "operation",
    [
        lambda folder: folder.stat("a"),
        lambda folder: list(folder.list_files("")),
        lambda folder: put(folder, "b", bytes(3_000_000)),
    ],
    ids=["look up", "list", "put"],
)
def test_a_server_that_falls_silent(sftp_folder, sftp_server, fault_proxy, operation):
    """Every operation is given up after the read time-out, and the next one connects anew."""
    proxy = fault_proxy(sftp_server.port)
    folder = sftp_folder(port=proxy.port, known_hosts=any_port(sftp_server), read_timeout_s=0.3)
    put(folder, "a")

    proxy.swallow = True
    with pytest.raises(UnreachableError, match="no answer in time"):
        operation(folder)

    proxy.swallow = False
    assert folder.stat("a").size == 7
    assert proxy.connections == 2


def test_a_server_that_falls_silent_in_the_middle_of_a_download(
    sftp_folder, sftp_server, fault_proxy
):
    """A read is given up after the time-out, however much has arrived before."""
    proxy = fault_proxy(sftp_server.port)
    folder = sftp_folder(port=proxy.port, known_hosts=any_port(sftp_server), read_timeout_s=0.3)
    file = put(folder, "a", bytes(30_000_000))
    with folder.open(file) as stream:
        stream.read(1_000_000)
        proxy.swallow = True
        with pytest.raises(UnreachableError, match="no answer in time"):
            stream.read()


def test_a_connection_cut_in_the_middle_of_a_download(sftp_folder, sftp_server):
    """The read fails as worth trying again, and the same folder then connects anew."""
    folder = sftp_folder()
    file = put(folder, "large.csv", bytes(20_000_000))
    sftp_server.faults.cut_after_bytes = 10_000_000
    with folder.open(file) as stream, pytest.raises(UnreachableError) as caught:
        stream.read()
    assert str(caught.value) == f"{folder.system}: read 'large.csv': {CUT}"
    sftp_server.faults.cut_after_bytes = None
    with folder.open(file) as stream:
        assert len(stream.read()) == 20_000_000


def test_a_connection_cut_in_the_middle_of_an_upload(sftp_folder, sftp_server, fault_proxy):
    """Nothing appears at the target."""
    proxy = fault_proxy(sftp_server.port)
    folder = sftp_folder(port=proxy.port, known_hosts=any_port(sftp_server))
    folder.stat("a")
    proxy.cut_after_bytes = 5_000_000
    with pytest.raises(UnreachableError, match="the connection was cut"):
        put(folder, "in/a", bytes(20_000_000))
    proxy.cut_after_bytes = None
    assert folder.stat("in/a") is None


def test_a_connection_cut_between_two_operations_is_made_anew(sftp_folder, sftp_server):
    """A folder that is kept open over a break of the network goes on by itself."""
    folder = sftp_folder()
    file = put(folder, "a")
    sftp_server.cut_connections()
    with contextlib.suppress(UnreachableError):  # the break may show only now
        folder.stat("a")
    assert folder.stat("a").version == file.version


def test_no_permission_to_read(sftp_folder, sftp_server):
    """The message says whom to ask."""
    folder = sftp_folder()
    file = put(folder, "a")
    sftp_server.faults.unreadable = True
    with pytest.raises(MisconfiguredError) as caught, folder.open(file):
        pass
    assert str(caught.value) == (
        f"{folder.system}: read 'a': the server denies permission; ask the partner to let the user "
        "do this there"
    )


def test_no_permission_to_write(sftp_folder, sftp_server):
    """Every change is denied with the same message, each naming its operation."""
    folder = sftp_folder()
    put(folder, "in/a")
    sftp_server.faults.read_only = True
    for operation, change in {
        "put": lambda: put(folder, "in/b"),
        "move": lambda: folder.move("in/a", "done/a"),
        "delete": lambda: folder.delete("in/a"),
    }.items():
        with pytest.raises(MisconfiguredError, match=f": {operation} .*: the server denies perm"):
            change()


def test_a_full_disk(sftp_folder, sftp_server):
    """The message names the likeliest cause, and the part is removed."""
    folder = sftp_folder()
    sftp_server.faults.room_bytes = 3_000_000
    with pytest.raises(PermanentError) as caught:
        put(folder, "in/a", bytes(9_000_000))
    assert message(caught) == (
        "the server failed to store it (No space left on device), most often because its disk or "
        "the user's quota is full; have the partner make room"
    )
    assert list((sftp_server.files / "in").iterdir()) == []


def test_a_full_disk_on_openssh(openssh, tiny_disk):
    """OpenSSH says no more than "Failure"; the message still names the likeliest cause."""
    block = openssh.model_copy(update={"root_folder": str(tiny_disk)})
    with (
        contextlib.closing(opened_sftp(block)) as folder,
        pytest.raises(PermanentError, match=r"failed to store it \(Failure\), most often beca"),
    ):
        put(folder, "in/a", bytes(3_000_000))
    assert list((tiny_disk / "in").iterdir()) == []


def test_a_move_to_another_disk_on_openssh(openssh, tiny_disk):
    """The message asks the question that leads to the cause."""
    block = openssh.model_copy(update={"root_folder": str(tiny_disk.parent)})
    with contextlib.closing(opened_sftp(block)) as folder:
        put(folder, "a")
        with pytest.raises(PermanentError, match="are both folders on one disk"):
            folder.move("a", "disk/a")


def test_a_file_shows_only_when_it_is_whole(sftp_folder, sftp_server):
    """Until the rename there is only a hidden part in the same folder."""
    folder = sftp_folder()
    seen = []

    class Watched(io.BytesIO):
        def read(self, size=-1):
            if (sftp_server.files / "in").exists():
                seen.append([path.name for path in (sftp_server.files / "in").iterdir()])
            return super().read(size)

    folder.put("in/stock.csv", Watched(bytes(9_000_000)), size=9_000_000)
    names = {name for names in seen for name in names}
    assert len(names) == 1
    assert re.fullmatch(r"\.stock\.csv\.[0-9a-f]{32}\.part", names.pop())
    assert [path.name for path in (sftp_server.files / "in").iterdir()] == ["stock.csv"]


def test_a_server_without_posix_rename(sftp_folder, sftp_server):
    """Overwriting works on servers that know only the rename that never overwrites."""
    folder = sftp_folder()
    put(folder, "a", b"old")
    put(folder, "b", b"older")
    sftp_server.faults.refuse_posix_rename = True
    put(folder, "a", b"new", overwrite=True)
    assert (sftp_server.files / "a").read_bytes() == b"new"
    folder.move("a", "b", overwrite=True)
    assert (sftp_server.files / "b").read_bytes() == b"new"
    with pytest.raises(TargetExistsError):
        put(folder, "b")


def test_a_file_that_grows_while_it_is_read(sftp_folder, sftp_server):
    """The end is not believed when the file is no longer the one that was listed."""
    folder = sftp_folder()
    file = put(folder, "a", bytes(100_000))
    with folder.open(file) as stream:
        with (sftp_server.files / "a").open("ab") as growing:
            growing.write(b"more")
        with pytest.raises(FileChangedError) as caught:
            stream.read()
    assert str(caught.value) == (
        f"{folder.system}: read 'a': it changed since it was listed; the next listing shows it as "
        "it is now"
    )


def test_a_file_that_is_cut_short_while_it_is_read(sftp_folder, sftp_server):
    """A truncated file is not taken for a shorter one."""
    folder = sftp_folder()
    file = put(folder, "a", bytes(40_000_000))
    with folder.open(file) as stream:
        stream.read(10)
        os.truncate(sftp_server.files / "a", 30_000_000)
        with pytest.raises(FileChangedError, match="changed since it was listed"):
            stream.read()


def test_a_server_that_answers_with_less_than_was_asked_for(sftp_folder, sftp_server):
    """What is missing of a block is asked for again, and everything stays in order."""
    folder = sftp_folder()
    content = bytes(range(256)) * 4000
    file = put(folder, "a", content)
    sftp_server.faults.answer_bytes = 10_000
    with folder.open(file) as stream:
        assert stream.read() == content


def test_a_name_that_is_not_utf8_does_not_stop_a_listing(sftp_folder, sftp_server, caplog):
    """It is left out with a warning that shows its bytes; all others are listed."""
    folder = sftp_folder()
    put(folder, "in/good")
    (sftp_server.files / "in" / os.fsdecode(b"Gr\xf6\xdfe.csv")).touch()
    assert [file.path for file in folder.list_files("in")] == ["in/good"]
    (warning,) = caplog.messages
    assert warning == (
        f"{folder.system}: list 'in': left out the name b'Gr\\xf6\\xdfe.csv', which no path can "
        "express; have it renamed, with a name in UTF-8"
    )


def test_symbolic_links_are_left_out(sftp_folder, sftp_server, tmp_path):
    """Neither links to files nor to folders are followed."""
    folder = sftp_folder()
    put(folder, "in/a")
    (sftp_server.files / "in" / "link").symlink_to("a")
    (sftp_server.files / "in" / "loop").symlink_to(".")
    assert [file.path for file in folder.list_files("", recursive=True)] == ["in/a"]
    assert folder.stat("in/link") is None


def test_a_listing_asks_once_and_not_for_each_file(sftp_folder, sftp_server):
    """300 files cost one listing and no look-up of a single file."""
    folder = sftp_folder()
    for number in range(300):
        (sftp_server.files / f"{number}.csv").touch()
    folder.stat("0.csv")
    sftp_server.requests.clear()
    assert len(list(folder.list_files(""))) == 300
    assert sftp_server.requests == {"list": 1, "lstat": 2}  # the server's own, for "." and ".."


def test_a_listing_may_be_left_unfinished(sftp_folder):
    """Stopping after the first file disturbs neither what follows nor the end."""
    folder = sftp_folder()
    for name in "ab":
        put(folder, name)
    listing = folder.list_files("")
    next(listing)
    listing.close()
    unfinished = folder.list_files("")
    next(unfinished)
    assert len(list(folder.list_files(""))) == 2
    folder.close()
    del unfinished


def test_many_files_go_over_one_connection(sftp_folder, sftp_server, fault_proxy):
    """Listing, reading and moving 20 files connects once."""
    proxy = fault_proxy(sftp_server.port)
    folder = sftp_folder(port=proxy.port, known_hosts=any_port(sftp_server))
    for number in range(20):
        file = put(folder, f"{number}.csv")
        with folder.open(file) as stream:
            stream.read()
        folder.move(file.path, f"done/{number}.csv")
    assert proxy.connections == 1


def test_a_key_without_password_logs_in(sftp_folder, sftp_server):
    """Also when a one-line form field has dropped the key's line breaks."""
    for key in (sftp_server.private_key, sftp_server.private_key.replace("\n", "")):
        assert list(sftp_folder(password=None, private_key=key).list_files("")) == []


def test_the_root_folder_is_where_paths_start(sftp_folder, sftp_server):
    """Relative and absolute root folders both work."""
    put(sftp_folder(root_folder="partners/acme"), "in/a")
    assert stat.S_ISREG((sftp_server.files / "partners/acme/in/a").stat().st_mode)
    folder = sftp_folder(root_folder="/partners/acme")
    assert [file.path for file in folder.list_files("in")] == ["in/a"]
    with pytest.raises(MisconfiguredError, match=r"list '\.': there is no such folder; have it"):
        list(sftp_folder(root_folder="/nobody").list_files(""))


def opened_sftp(block):
    return SftpFiles(block.get_client, system=block.system, root=block.root_folder)


def any_port(sftp_server):
    """The server's key for whatever port the proxy listens on."""
    return sftp_server.known_hosts.partition(" ")[2]
