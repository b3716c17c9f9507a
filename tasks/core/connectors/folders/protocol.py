"""The protocol that every place that holds files implements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Protocol

from blocks.errors import BadPayloadError, PermanentError


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file as a listing shows it.

    Attributes:
        path: Relative to the place's root, separated by "/", e.g. "incoming/stock.csv".
        size: Bytes.
        modified_at: Aware UTC instant, as precise as the place reports it.
        version: Opaque; a different value means other content or a new upload.
    """

    path: str
    size: int
    modified_at: datetime
    version: str

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


class FileChangedError(BadPayloadError):
    """The file vanished or changed since it was listed; the next listing shows its new state."""


class TargetExistsError(PermanentError):
    """There is already a file at the target, and overwriting was not requested."""


class RemoteFolder(Protocol):
    """A place that holds files. A new kind of place is one class with these methods.

    Paths are relative to the place's root and separated by "/"; a path that leaves the root, is
    absolute or has a ".." part is refused with `PermanentError`. Third-party errors are mapped
    to the tree of `blocks.errors`. Only one thread at a time may use an instance.
    """

    @property
    def system(self) -> str:
        """Name of this place in errors, e.g. "sftp://files.partner.example"; no secrets."""
        ...

    def list_files(self, folder: str, *, recursive: bool = False) -> Iterator[RemoteFile]:
        """Yield the files of a folder, in no particular order, with one request per page.

        Folders, symbolic links and names that no path can express (not UTF-8, or with a "/")
        are skipped; such names are logged as a warning.

        Raises:
            MisconfiguredError: The folder is missing or may not be read.
        """
        ...

    def stat(self, path: str) -> RemoteFile | None:
        """Return the file as it is now, or None if there is none."""
        ...

    def open(self, file: RemoteFile) -> AbstractContextManager[BinaryIO]:
        """Open for reading as a stream, in constant memory.

        Raises:
            FileChangedError: It vanished or changed since it was listed; reads raise it too.
            UnreachableError: The connection was cut in the middle; reads raise it too.
        """
        ...

    def put(
        self, path: str, content: BinaryIO, *, size: int, overwrite: bool = False
    ) -> RemoteFile:
        """Store a file so that it appears whole or not at all; create folders as needed.

        Raises:
            TargetExistsError: It exists and `overwrite` is off.
            PermanentError: There is no room or permission.
        """
        ...

    def move(self, path: str, target: str, *, overwrite: bool = False) -> None:
        """Move within this place; create folders as needed.

        Raises:
            TargetExistsError: The target exists and `overwrite` is off.
            FileChangedError: The source is gone.
        """
        ...

    def delete(self, path: str) -> None:
        """Remove a file; do nothing if it is already gone."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...
