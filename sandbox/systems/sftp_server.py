"""A partner's SFTP server on the loopback, over a folder that a person can look into."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh

from sandbox.systems.stand_in import StandIn
from tasks.core.connectors.folders.background_loop import BackgroundLoop

if TYPE_CHECKING:
    from blocks.sftp_server import SftpServer

_HOST = "127.0.0.1"


@dataclass
class Faults:
    """What goes wrong until it is set back.

    Attributes:
        cut_after_bytes: The connection is cut once so many bytes of files were read from it.
        room_bytes: The disk is full once so many more bytes were written.
        read_only: Whatever would change something is denied.
        unreadable: Opening files is denied.
        answer_bytes: The most that one read is answered with, as servers may.
        delay_s: Waited before each read and write.
        refuse_posix_rename: The server knows only the rename that never overwrites.
    """

    cut_after_bytes: int | None = None
    room_bytes: int | None = None
    read_only: bool = False
    unreadable: bool = False
    answer_bytes: int | None = None
    delay_s: float = 0.0
    refuse_posix_rename: bool = False


@dataclass
class SftpSandbox(StandIn):
    """A running server.

    Attributes:
        files: The folder it serves, as clients see "/".
        port: Of 127.0.0.1.
        known_hosts: The line by which clients know it.
        private_key: Logs `username` in, as `password` does.
        requests: How often each kind of request came.
    """

    files: Path
    port: int
    username: str
    password: str
    known_hosts: str
    private_key: str
    faults: Faults
    requests: Counter[str]
    _loop: BackgroundLoop
    _acceptor: Any
    _connections: set[Any]

    @property
    def host(self) -> str:
        """The loopback."""
        return _HOST

    def block(self, **fields: Any) -> SftpServer:
        """The block for it; `fields` go before what would be right."""
        from blocks.sftp_server import SftpServer

        right = {
            "host": self.host,
            "port": self.port,
            "username": self.username,
            "password": self.password,
            "known_hosts": self.known_hosts,
        }
        return SftpServer(**{**right, **fields})

    def cut_connections(self) -> None:
        """Cut all connections and go on listening."""
        self._loop.run(self._cut())

    def stop(self) -> None:
        """Cut all connections and stop listening."""
        self._loop.run(self._stop())
        self._loop.close()

    async def _stop(self) -> None:
        self._acceptor.close()
        await self._cut()
        await self._acceptor.wait_closed()

    async def _cut(self) -> None:
        for connection in list(self._connections):
            connection.abort()
            await connection.wait_closed()


def start(
    data_dir: Path,
    *,
    port: int = 0,
    username: str = "partner",
    password: str = "sandbox",  # noqa: S107  # a stand-in's, not a secret
) -> SftpSandbox:
    """Serve `data_dir`/files; the keys beside it are made once and kept.

    Args:
        data_dir: Made if it is missing.
        port: 0 for a free one.
        username: Who may log in.
        password: With which.
    """
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    files = data_dir / "files"
    files.mkdir(parents=True, exist_ok=True)
    host_key = _key(data_dir / "host_key")
    client_key = _key(data_dir / "client_key")
    state = _State(files, username, password, client_key.convert_to_public())
    loop = BackgroundLoop("sftp-sandbox")
    acceptor = loop.run(_listen(state, port, host_key))
    public_key = host_key.export_public_key().decode().strip().rpartition(" ")[0]
    sandbox = SftpSandbox(
        files=files,
        port=acceptor.get_port(),
        username=username,
        password=password,
        known_hosts=f"[{_HOST}]:{acceptor.get_port()} {public_key}",
        private_key=(data_dir / "client_key").read_text(),
        faults=state.faults,
        requests=state.requests,
        _loop=loop,
        _acceptor=acceptor,
        _connections=state.connections,
    )
    (data_dir / "known_hosts").write_text(sandbox.known_hosts + "\n")
    return sandbox


@dataclass
class _State:
    files: Path
    username: str
    password: str
    client_key: Any
    faults: Faults = field(default_factory=Faults)
    requests: Counter[str] = field(default_factory=Counter)
    connections: set[Any] = field(default_factory=set)


async def _listen(state: _State, port: int, host_key: Any) -> Any:
    return await asyncssh.listen(
        _HOST,
        port,
        server_host_keys=[host_key],
        server_factory=lambda: _Login(state),
        sftp_factory=lambda channel: _Files(channel, state),
        login_timeout=30,
    )


def _key(path: Path) -> Any:
    if not path.exists():
        key = asyncssh.generate_private_key("ssh-ed25519", comment="sandbox")
        path.touch(mode=0o600)
        key.write_private_key(path)
        key.write_public_key(f"{path}.pub")
    return asyncssh.read_private_key(path)


class _Login(asyncssh.SSHServer):  # type: ignore[misc]  # asyncssh is not followed
    """Lets one user in, by password or key."""

    def __init__(self, state: _State) -> None:
        self._state = state
        self._connection: Any = None

    def connection_made(self, conn: Any) -> None:
        self._connection = conn
        self._state.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self._connection)

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        right = hmac.compare_digest(password.encode(), self._state.password.encode())
        return right and username == self._state.username

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: Any) -> bool:
        return bool(key == self._state.client_key) and username == self._state.username


class _Files(asyncssh.SFTPServer):  # type: ignore[misc]  # asyncssh is not followed
    """The folder, with its faults."""

    def __init__(self, channel: Any, state: _State) -> None:
        super().__init__(channel, chroot=str(state.files).encode())
        self._faults = state.faults
        self._requests = state.requests

    async def scandir(self, path: bytes) -> AsyncIterator[Any]:
        self._requests["list"] += 1
        async for entry in super().scandir(path):
            yield entry

    def stat(self, path: bytes) -> Any:
        self._requests["stat"] += 1
        return super().stat(path)

    def lstat(self, path: bytes) -> Any:
        self._requests["lstat"] += 1  # listing a folder asks for each of its entries
        return super().lstat(path)

    def open(self, path: bytes, pflags: int, attrs: Any) -> Any:
        self._requests["open"] += 1
        if pflags & asyncssh.FXF_WRITE:
            self._deny_changes()
        elif self._faults.unreadable:
            raise asyncssh.SFTPPermissionDenied("Permission denied")
        return super().open(path, pflags, attrs)

    async def read(self, file_obj: Any, offset: int, size: int) -> bytes:
        await asyncio.sleep(self._faults.delay_s)
        left = self._faults.cut_after_bytes
        if left is not None:
            if left <= 0:
                self.connection.abort()
            self._faults.cut_after_bytes = left - size
        answer_bytes = min(size, self._faults.answer_bytes or size)
        data: bytes = super().read(file_obj, offset, answer_bytes)
        return data

    async def write(self, file_obj: Any, offset: int, data: bytes) -> int:
        await asyncio.sleep(self._faults.delay_s)
        room = self._faults.room_bytes
        if room is not None:
            if room < len(data):
                raise asyncssh.SFTPNoSpaceOnFilesystem("No space left on device")
            self._faults.room_bytes = room - len(data)
        count: int = super().write(file_obj, offset, data)
        return count

    def remove(self, path: bytes) -> Any:
        self._deny_changes()
        return super().remove(path)

    def mkdir(self, path: bytes, attrs: Any) -> Any:
        self._deny_changes()
        return super().mkdir(path, attrs)

    def rename(self, oldpath: bytes, newpath: bytes) -> Any:
        self._deny_changes()
        return super().rename(oldpath, newpath)

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> Any:
        self._deny_changes()
        if self._faults.refuse_posix_rename:
            raise asyncssh.SFTPOpUnsupported("POSIX rename not supported")
        return super().posix_rename(oldpath, newpath)

    def _deny_changes(self) -> None:
        if self._faults.read_only:
            raise asyncssh.SFTPPermissionDenied("Permission denied")
