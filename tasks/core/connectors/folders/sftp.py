"""A folder on an SFTP server as a place that holds files.

The client is asyncssh because it is fast, bounded in memory, and returns names as bytes. paramiko
needs four times the processor time, buffers a whole file at full speed, and fails on a listing in
which one name is not UTF-8.
"""

from __future__ import annotations

import asyncio
import itertools
import posixpath
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO, TypeVar

import asyncssh

from blocks.errors import PermanentError, TransientError
from tasks.core.connectors.folders.background_loop import BackgroundLoop
from tasks.core.connectors.folders.moves import leads_nowhere
from tasks.core.connectors.folders.paths import clean_path, listed_path, part_path
from tasks.core.connectors.folders.protocol import FileChangedError, RemoteFile
from tasks.core.connectors.folders.sftp_errors import sftp_errors
from tasks.core.connectors.folders.sftp_reads import OrderedReads
from tasks.core.connectors.folders.streams import ExactContent, ReadAhead, buffered
from tasks.core.threads import result_of

T = TypeVar("T")

# Every server takes blocks of 32 KiB; servers that announce more get larger ones.
_LEAST_BLOCK_BYTES = 32 * 1024
_MOST_BLOCK_BYTES = 256 * 1024
_WRITES_UNDER_WAY = 32
_PAGE_ENTRIES = 1000
_CLOSE_TIMEOUT_S = 5.0


class SftpFiles:
    """The files below one folder of an SFTP server, over one connection.

    It connects at first use, and reconnects when the connection was lost.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Any]],
        *,
        system: str,
        root: str = ".",
        timeout_s: float = 60.0,
    ) -> None:
        """Remember how to connect.

        Args:
            connect: Returns an `asyncssh.SSHClientConnection` that is logged in.
            system: Name of this place in errors.
            root: The folder on the server that all paths start from.
            timeout_s: Seconds to wait for a response before dropping the connection.
        """
        self._connect = connect
        self._system = system
        self._root = root or "."
        self._timeout_s = timeout_s
        self._loop = BackgroundLoop("sftp")
        self._connection: Any = None
        self._client: Any = None
        self._block_bytes = _LEAST_BLOCK_BYTES

    @property
    def system(self) -> str:
        """Name of this place in errors, e.g. "sftp://partner@files.example"."""
        return self._system

    def list_files(self, folder: str, *, recursive: bool = False) -> Iterator[RemoteFile]:
        """Yield the regular files of a folder; see `RemoteFolder.list_files`."""
        waiting = [clean_path(folder, system=self._system, operation="list", may_be_root=True)]
        while waiting:
            current = waiting.pop()
            for entry in self._entries(current):
                path = listed_path(current, entry.filename, system=self._system)
                if path is None:
                    continue
                if entry.attrs.type == asyncssh.FILEXFER_TYPE_REGULAR:
                    yield _described(path, entry.attrs)
                elif recursive and entry.attrs.type == asyncssh.FILEXFER_TYPE_DIRECTORY:
                    waiting.append(path)

    def stat(self, path: str) -> RemoteFile | None:
        """Return the file as it is now, or None if there is none."""
        path = self._clean(path, "look up")
        attrs = self._call("look up", path, lambda client: _lstat(client, self._remote(path)))
        if attrs is None or attrs.type != asyncssh.FILEXFER_TYPE_REGULAR:
            return None
        return _described(path, attrs)

    @contextmanager
    def open(self, file: RemoteFile) -> Iterator[BinaryIO]:
        """Open for reading, many requests ahead; see `RemoteFolder.open`."""
        path = self._clean(file.path, "read")
        remote = self._remote(path)
        handle = self._call("read", path, lambda client: client.open(remote, "rb", block_size=0))

        async def check_unchanged(*, at_end: bool = False) -> None:
            now = _described(path, await self._in_time(handle.stat()))
            if now.version != file.version or (at_end and reads.count != file.size):
                raise FileChangedError(
                    "it changed since it was listed; the next listing shows it as it is now",
                    system=self._system,
                    operation="read",
                    record=path,
                )

        reads = OrderedReads(handle, file.size, self._block_bytes, self._in_time)

        async def window() -> list[bytes]:
            with sftp_errors(self._system, "read", path):
                blocks = await reads.window()
                if not blocks:
                    await check_unchanged(at_end=True)
                return blocks

        try:
            self._call("read", path, lambda _: check_unchanged())
            windows = (self._loop.submit(window()) for _ in itertools.repeat(None))
            with buffered(ReadAhead(windows, ahead=1)) as content:
                yield content
        finally:
            self._loop.run(reads.close())

    def put(
        self, path: str, content: BinaryIO, *, size: int, overwrite: bool = False
    ) -> RemoteFile:
        """Store a file whole or not at all; see `RemoteFolder.put`."""
        path = self._clean(path, "put")
        part = self._remote(part_path(path))
        exact = ExactContent(content, size, system=self._system, operation="put", record=path)
        handle = self._call(
            "put",
            path,
            lambda client: _with_folder(
                client, part, lambda: client.open(part, "xb", block_size=0)
            ),
        )
        try:
            attrs = self._write(handle, exact, path)
            self._call(
                "put",
                path,
                lambda client: _rename(client, part, self._remote(path), overwrite=overwrite),
            )
        except BaseException:
            if self._is_connected():
                with suppress(PermanentError, TransientError):  # the first failure is raised
                    self._call("put", path, lambda client: client.remove(part))
            raise
        return _described(path, attrs)

    def move(self, path: str, target: str, *, overwrite: bool = False) -> None:
        """Move within this place; see `RemoteFolder.move`."""
        path, target = self._clean(path, "move"), self._clean(target, "move")
        if leads_nowhere(self, path, target):
            return
        source, destination = self._remote(path), self._remote(target)
        self._call(
            "move",
            path,
            lambda client: _with_folder(
                client,
                destination,
                lambda: _rename(client, source, destination, overwrite=overwrite),
            ),
        )

    def delete(self, path: str) -> None:
        """Remove a file; do nothing if it is already gone."""
        path = self._clean(path, "delete")
        self._call("delete", path, lambda client: _remove(client, self._remote(path)))

    def close(self) -> None:
        """Close the connection."""
        self._disconnect()
        self._loop.close()

    def _entries(self, folder: str) -> Iterator[Any]:
        remote = self._remote(folder)
        scan = self._connected().scandir(remote)
        try:
            while page := self._call("list", folder, lambda _: _page(scan)):
                yield from page
        finally:
            if self._is_connected():
                with suppress(asyncssh.Error, OSError):
                    self._loop.run(self._in_time(scan.aclose()))

    def _write(self, handle: Any, content: ExactContent, path: str) -> Any:
        """Write and close; return the attributes of what the server stored."""
        under_way: deque[Any] = deque()
        offset = 0

        async def write(data: bytes, offset: int) -> None:
            with sftp_errors(self._system, "put", path):
                await self._in_time(handle.write(data, offset))

        try:
            while data := content.read(self._block_bytes):
                under_way.append(self._loop.submit(write(data, offset)))
                offset += len(data)
                if len(under_way) > _WRITES_UNDER_WAY:
                    result_of(under_way.popleft())
            while under_way:
                result_of(under_way.popleft())
            attrs = self._call("put", path, lambda _: handle.stat())
            self._call("put", path, lambda _: handle.close())  # some report a full disk only now
        except BaseException:
            for write_under_way in under_way:
                write_under_way.cancel()
            with suppress(asyncssh.Error, OSError):
                self._loop.run(self._in_time(handle.close()))
            raise
        if attrs.size != offset:
            raise PermanentError(
                f"the server stored {attrs.size} of {offset} bytes; is its disk full?",
                system=self._system,
                operation="put",
                record=path,
            )
        return attrs

    def _call(
        self,
        operation: str,
        path: str,
        request: Callable[[Any], Coroutine[Any, Any, T]],
    ) -> T:
        client = self._connected()
        try:
            with sftp_errors(self._system, operation, path or "."):
                return self._loop.run(self._in_time(request(client)))
        except TransientError:
            self._disconnect()
            raise

    def _connected(self) -> Any:
        if not self._is_connected():
            self._disconnect()
            with sftp_errors(self._system, "connect", None):
                self._loop.run(self._start_client())
        return self._client

    def _is_connected(self) -> bool:
        return self._client is not None and not self._connection.is_closed()

    async def _start_client(self) -> None:
        self._connection = await self._connect()
        # Names are bytes: a listing must not fail because one of them is not UTF-8.
        self._client = await self._in_time(self._connection.start_sftp_client(path_encoding=None))
        limits = self._client.limits
        limit = min(limits.max_read_len, limits.max_write_len, _MOST_BLOCK_BYTES)
        self._block_bytes = max(limit, _LEAST_BLOCK_BYTES)

    def _disconnect(self) -> None:
        connection, self._connection, self._client = self._connection, None, None
        if connection is not None:
            with suppress(TimeoutError):
                self._loop.run(_disconnected(connection))

    async def _in_time(self, request: Awaitable[T]) -> T:
        """Wait for a response, within the timeout."""
        task = asyncio.ensure_future(request)
        try:
            await asyncio.wait({task}, timeout=self._timeout_s)
            if not task.done():
                # Cancelling is not enough: asyncssh would wait for a response to its clean-up.
                if self._connection is not None:
                    self._connection.abort()
                await asyncio.wait({task}, timeout=_CLOSE_TIMEOUT_S)
                raise TimeoutError
            return task.result()
        finally:
            task.cancel()
            task.add_done_callback(_retrieve)

    def _clean(self, path: str, operation: str) -> str:
        return clean_path(path, system=self._system, operation=operation)

    def _remote(self, path: str) -> bytes:
        return posixpath.join(self._root, path).encode() if path else self._root.encode()


def _described(path: str, attrs: Any) -> RemoteFile:
    # Version 3 of SFTP reports whole seconds.
    modified_at = datetime.fromtimestamp(attrs.mtime or 0, UTC)
    return RemoteFile(path, attrs.size or 0, modified_at, f"{attrs.size}-{attrs.mtime}")


async def _page(scan: Any) -> list[Any]:
    entries: list[Any] = []
    async for entry in scan:
        if entry.filename not in (b".", b".."):
            entries.append(entry)
        if len(entries) == _PAGE_ENTRIES:
            break
    return entries


async def _lstat(client: Any, path: bytes) -> Any:
    try:
        return await client.lstat(path)
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        return None


async def _remove(client: Any, path: bytes) -> None:
    with suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        await client.remove(path)


async def _rename(client: Any, source: bytes, target: bytes, *, overwrite: bool) -> None:
    if overwrite:
        try:
            await client.posix_rename(source, target)
        except asyncssh.SFTPOpUnsupported:
            # Without the extension the target is missing for a moment.
            await _remove(client, target)
        else:
            return
    try:
        await client.rename(source, target)
    except asyncssh.SFTPFailure as exc:
        # Servers report an existing target in different ways.
        if await _lstat(client, target) is None:
            raise
        raise asyncssh.SFTPFileAlreadyExists("File already exists") from exc


async def _with_folder(
    client: Any, path: bytes, request: Callable[[], Coroutine[Any, Any, T]]
) -> T:
    """Make a request; if the path's folder is missing, create it and try again."""
    try:
        return await request()
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        folder = posixpath.dirname(path)
        if not folder or await client.exists(folder):
            raise
        await client.makedirs(folder, exist_ok=True)
        return await request()


async def _disconnected(connection: Any) -> None:
    connection.close()
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await connection.wait_closed()
    except TimeoutError:
        connection.abort()
        raise


def _retrieve(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()
