"""A folder of an Azure file share as a place that holds files.

Microsoft's client library signs the requests and splits files into ranges. SMB's rules apply:
names ignore case and may not contain some characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError

from blocks.errors import MisconfiguredError, PermanentError, UpstreamFailedError
from tasks.core.connectors.folders.azure_files_errors import EXISTS, azure_errors, code_of
from tasks.core.connectors.folders.moves import leads_nowhere
from tasks.core.connectors.folders.paths import clean_path, join, listed_path, parent, part_path
from tasks.core.connectors.folders.protocol import FileChangedError, RemoteFile, TargetExistsError
from tasks.core.connectors.folders.ranges import RangedReader
from tasks.core.connectors.folders.streams import ExactContent, Watched, buffered

if TYPE_CHECKING:
    from azure.storage.fileshare import ShareClient, ShareFileClient

T = TypeVar("T")
_UNWRITABLE = frozenset('"\\:|<>*?')
_NO_FILE = {"ResourceNotFound", "ParentNotFound", "ResourceTypeMismatch"}


class AzureFiles:
    """The files below one folder of a share.

    Args:
        client: The share's client; closed by `close`.
        system: Name of this place in errors.
        root: The folder that all paths start from.
    """

    def __init__(self, client: ShareClient, *, system: str, root: str = "") -> None:
        self._client = client
        self._system = system
        self._root = root.strip("/")

    @property
    def system(self) -> str:
        """Name of this place in errors."""
        return self._system

    def list_files(self, folder: str, *, recursive: bool = False) -> Iterator[RemoteFile]:
        """Yield the files of a folder; see `RemoteFolder.list_files`."""
        waiting = [self._clean(folder, "list", may_be_root=True)]
        while waiting:
            current = waiting.pop()
            for entry in self._entries(current):
                path = listed_path(current, entry.name, system=self._system)
                if path is None:
                    continue
                if not entry.is_directory:
                    yield _described(path, entry)
                elif recursive:
                    waiting.append(path)

    def stat(self, path: str) -> RemoteFile | None:
        """Return the file as it is now, or None if there is none."""
        path = self._clean(path, "look up")
        with azure_errors(self._system, "look up", path):
            found = _unless_missing(self._file(path).get_file_properties)
        return None if found is None else _described(path, found)

    @contextmanager
    def open(self, file: RemoteFile) -> Iterator[BinaryIO]:
        """Open for reading; see `RemoteFolder.open`."""
        path = self._clean(file.path, "read")
        with azure_errors(self._system, "read", path):
            found = _unless_missing(lambda: self._file(path).download_file(validate_content=True))
        if found is None or _version(found.properties) != file.version:
            raise FileChangedError(
                f"it {'vanished' if found is None else 'changed'} since it was listed; the next "
                "listing shows it as it is now",
                system=self._system,
                operation="read",
                record=path,
            )
        count = 0

        def check_size() -> None:
            if count != file.size:
                raise UpstreamFailedError(
                    f"{count:,} of {file.size:,} bytes came; try again",
                    system=self._system,
                    operation="read",
                    record=path,
                )

        def add(piece: memoryview) -> None:
            nonlocal count
            count += len(piece)

        reads = Watched(
            RangedReader(found.chunks()),
            errors=lambda: azure_errors(self._system, "read", path),
            seen=add,
            at_end=check_size,
        )
        with buffered(reads) as content:
            yield content

    def put(
        self, path: str, content: BinaryIO, *, size: int, overwrite: bool = False
    ) -> RemoteFile:
        """Store a file whole or not at all; see `RemoteFolder.put`.

        It is written under a hidden name and then renamed.
        """
        path = self._clean(path, "put")
        if not overwrite and self.stat(path):
            # Checked before the content is sent; the rename checks again for a later arrival.
            raise TargetExistsError(EXISTS, system=self._system, operation="put", record=path)
        part = part_path(path)
        exact = ExactContent(content, size, system=self._system, operation="put", record=path)
        source: Any = exact  # has the file methods that the library uses
        try:
            with azure_errors(self._system, "put", path):
                file = self._file(part)
                # The service verifies each range's digest; a missing folder shows before any
                # content is read.
                self._with_folder(
                    path, lambda: file.upload_file(source, length=size, validate_content=True)
                )
                exact.read(1)
                exact.check_ended()
                file.rename_file(self._remote(path), overwrite=overwrite)
        except BaseException:
            with suppress(AzureError):  # the first failure is raised
                self._file(part).delete_file()
            raise
        found = self.stat(path)
        if found is None:
            raise UpstreamFailedError(
                "it vanished right after it was stored; did somebody fetch it already?",
                system=self._system,
                operation="put",
                record=path,
            )
        return found

    def move(self, path: str, target: str, *, overwrite: bool = False) -> None:
        """Move within this place; see `RemoteFolder.move`."""
        path, target = self._clean(path, "move"), self._clean(target, "move")
        if leads_nowhere(self, path, target):
            return
        destination = self._remote(target)
        with azure_errors(self._system, "move", path):
            try:
                self._with_folder(
                    target, lambda: self._file(path).rename_file(destination, overwrite=overwrite)
                )
            except ResourceNotFoundError as exc:
                if code_of(exc) == "ShareNotFound":
                    raise
                raise FileChangedError(
                    "it vanished since it was listed; somebody else was faster",
                    system=self._system,
                    operation="move",
                    record=path,
                ) from exc

    def delete(self, path: str) -> None:
        """Remove a file; do nothing if it is already gone."""
        path = self._clean(path, "delete")
        with azure_errors(self._system, "delete", path):
            try:
                self._file(path).delete_file()
            except ResourceNotFoundError as exc:
                if code_of(exc) == "ShareNotFound":
                    raise

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _entries(self, folder: str) -> Iterator[Any]:
        directory = self._client.get_directory_client(self._remote(folder) or None)
        with azure_errors(self._system, "list", folder or "."):
            try:
                yield from directory.list_directories_and_files(include=["timestamps", "Etag"])
            except ResourceNotFoundError as exc:
                if code_of(exc) == "ShareNotFound":
                    raise
                raise MisconfiguredError(
                    "there is no such folder; make it, or correct the path",
                    system=self._system,
                    operation="list",
                    record=folder or ".",
                ) from exc

    def _with_folder(self, path: str, request: Callable[[], T]) -> T:
        """Make a request; if the path's folder is missing, create it and try again."""
        try:
            return request()
        except ResourceNotFoundError as exc:
            if code_of(exc) != "ParentNotFound":
                raise
        self._make_folder(parent(path))
        return request()

    def _make_folder(self, folder: str) -> None:
        path = ""
        for name in self._remote(folder).split("/"):
            path = join(path, name)
            with suppress(ResourceExistsError):
                self._client.get_directory_client(path).create_directory()

    def _file(self, path: str) -> ShareFileClient:
        return self._client.get_file_client(self._remote(path))

    def _remote(self, path: str) -> str:
        return "/".join(part for part in (self._root, path) if part)

    def _clean(self, path: str, operation: str, *, may_be_root: bool = False) -> str:
        path = clean_path(path, system=self._system, operation=operation, may_be_root=may_be_root)
        bad = sorted({char for char in path if char in _UNWRITABLE or not char.isprintable()})
        if bad or any(name.endswith((".", " ")) for name in path.split("/")):
            found = " ".join(map(repr, bad)) or "a dot or blank at its end"
            raise PermanentError(
                f"a file share cannot hold {found} in a name; use another name",
                system=self._system,
                operation=operation,
                record=path,
            )
        return path


def _unless_missing(request: Callable[[], T]) -> T | None:
    try:
        return request()
    except AzureError as exc:
        code = code_of(exc)
        is_missing = isinstance(exc, ResourceNotFoundError) or code in _NO_FILE
        if not is_missing or code == "ShareNotFound":
            raise
        return None


def _described(path: str, properties: Any) -> RemoteFile:
    modified_at = properties.last_modified.astimezone(UTC)
    return RemoteFile(path, int(properties.size), modified_at, _version(properties))


def _version(properties: Any) -> str:
    return str(properties.etag).strip('"')
