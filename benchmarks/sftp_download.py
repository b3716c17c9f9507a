"""Download one file over SFTP from OpenSSH's server: its own client, ours, and paramiko.

    python -m benchmarks.sftp_download [--megabytes 500] [--rounds 5]

Needs OpenSSH's `sshd` and `sftp`. The times are of connecting, downloading into a file and
closing; the start of the interpreter and its imports are not counted.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from getpass import getuser
from pathlib import Path

from benchmarks import downloads

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def main() -> None:
    """Run all cases against one server."""
    cases = {"openssh": openssh, "ours": ours, "paramiko": bare_paramiko}
    arguments = downloads.arguments(__doc__, list(cases))
    if arguments.case:
        return downloads.run_case(cases[arguments.case], arguments.work)
    with downloads.work_directory() as name:
        work = Path(name)
        downloads.write_file(work / "large.bin", arguments.megabytes)
        with server(work):
            downloads.compare(
                "benchmarks.sftp_download",
                work,
                list(cases),
                megabytes=arguments.megabytes,
                rounds=arguments.rounds,
            )
    return None


def openssh(work: Path) -> Callable[[], None]:
    """OpenSSH's `sftp`."""
    command: list[str | Path] = [
        shutil.which("sftp") or "sftp", "-q", "-b", "-", "-P", port(work),
        "-i", work / "client_key", "-o", f"UserKnownHostsFile={work}/known_hosts",
        f"{getuser()}@127.0.0.1",
    ]  # fmt: skip
    batch = f"get {work}/large.bin {work}/downloaded\n".encode()

    def download() -> None:
        subprocess.run(command, input=batch, stdout=subprocess.DEVNULL, check=True)

    return download


def ours(work: Path) -> Callable[[], None]:
    """The block and the folder protocol, as tasks use them."""
    from blocks.sftp_server import SftpServer
    from tasks.core.connectors.folders.sftp import SftpFiles

    block = SftpServer(
        host="127.0.0.1",
        port=int(port(work)),
        username=getuser(),
        private_key=(work / "client_key").read_text(),
        known_hosts=(work / "known_hosts").read_text(),
        root_folder=str(work),
    )

    def download() -> None:
        files = SftpFiles(block.get_client, system=block.system, root=block.root_folder)
        with closing(files) as folder:
            downloads.copy(folder, work)

    return download


def bare_paramiko(work: Path) -> Callable[[], None]:
    """Paramiko as it comes: all requests at once, the whole file in memory if need be."""
    import paramiko

    def download() -> None:
        with paramiko.Transport(("127.0.0.1", int(port(work)))) as transport:
            key = paramiko.Ed25519Key.from_private_key_file(str(work / "client_key"))
            transport.connect(username=getuser(), pkey=key)
            client = paramiko.SFTPClient.from_transport(transport)
            assert client is not None
            client.get(f"{work}/large.bin", f"{work}/downloaded")

    return download


def port(work: Path) -> str:
    """Where the server listens."""
    return (work / "port").read_text()


@contextmanager
def server(work: Path) -> Iterator[None]:
    """OpenSSH's server on a free port of the loopback, as this user."""
    for name in ("host_key", "client_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(work / name)], check=True
        )
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    (work / "port").write_text(str(number))
    public_key = " ".join((work / "host_key.pub").read_text().split()[:2])
    (work / "known_hosts").write_text(f"[127.0.0.1]:{number} {public_key}\n")
    (work / "config").write_text(
        f"ListenAddress 127.0.0.1:{number}\nHostKey {work}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {work}/client_key.pub\nStrictModes no\nUsePAM no\n"
        "Subsystem sftp internal-sftp\n"
    )
    with suppress(OSError):  # asked for only when it runs as root
        Path("/run/sshd").mkdir()
    sshd = shutil.which("sshd", path=_PATH)
    if sshd is None:
        raise SystemExit("OpenSSH's sshd is not installed")
    process = subprocess.Popen([sshd, "-D", "-f", work / "config", "-E", work / "log"])
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", number)) == 0:
                    break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
