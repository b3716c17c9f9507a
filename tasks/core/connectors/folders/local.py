"""A folder on this machine, or on a disk mounted there, as a place that holds files."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from blocks.errors import (
    IntegrationError,
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamFailedError,
)
from tasks.core.connectors.folders.moves import leads_nowhere
from tasks.core.connectors.folders.paths import clean_path, listed_path, part_path
from tasks.core.connectors.folders.protocol import FileChangedError, RemoteFile, TargetExistsError
from tasks.core.connectors.folders.streams import ExactContent, Watched, buffered

_COPY_BYTES = 1024 * 1024


class LocalFiles:
    """The files below one folder; symbolic links are neither listed nor followed out of it."""

    def __init__(self, root: Path, *, system: str) -> None:
        self._root = root
        self._system = system

    @property
    def system(self) -> str:
        """Name of this place in errors, e.g. "file:///srv/incoming"."""
        return self._system

    def list_files(self, folder: str, *, recursive: bool = False) -> Iterator[RemoteFile]:
        """Yield the regular files of a folder; see `RemoteFolder.list_files`."""
        waiting = [clean_path(folder, system=self._system, operation="list", may_be_root=True)]
        while waiting:
            current = waiting.pop()
            there = self._inside(current, is_folder=True)
            with self._errors("list", current), os.scandir(there) as entries:
                for entry in entries:
                    path = listed_path(current, entry.name, system=self._system)
                    if path is None:
                        continue
                    if entry.is_file(follow_symlinks=False):
                        with suppress(FileNotFoundError):  # gone since the folder was read
                            yield _described(path, entry.stat(follow_symlinks=False))
                    elif recursive and entry.is_dir(follow_symlinks=False):
                        waiting.append(path)

    def stat(self, path: str) -> RemoteFile | None:
        """Return the file as it is now, or None if there is none."""
        path = self._clean(path, "look up")
        with self._errors("look up", path):
            try:
                status = self._inside(path).lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return _described(path, status) if stat.S_ISREG(status.st_mode) else None

    @contextmanager
    def open(self, file: RemoteFile) -> Iterator[BinaryIO]:
        """Open for reading; see `RemoteFolder.open`."""
        path = self._clean(file.path, "read")

        def check_unchanged() -> None:
            if _described(path, os.fstat(descriptor)).version != file.version:
                raise self._changed("read", path, "it changed since it was listed")

        with self._errors("read", path):
            descriptor = os.open(self._inside(path), os.O_RDONLY | os.O_NOFOLLOW)
        reads = Watched(
            io.FileIO(descriptor, "rb"),
            errors=lambda: self._errors("read", path),
            at_end=check_unchanged,
        )
        with buffered(reads) as content:
            check_unchanged()
            yield content

    def put(
        self, path: str, content: BinaryIO, *, size: int, overwrite: bool = False
    ) -> RemoteFile:
        """Store a file whole or not at all; see `RemoteFolder.put`."""
        path = self._clean(path, "put")
        target = self._inside(path)
        part = self._inside(part_path(path))
        exact = ExactContent(content, size, system=self._system, operation="put", record=path)
        with self._errors("put", path):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("xb") as written:
                    shutil.copyfileobj(exact, written, _COPY_BYTES)
                    exact.check_ended()
                    written.flush()
                    os.fsync(written.fileno())
                    stored = _described(path, os.fstat(written.fileno()))
                _rename(part, target, overwrite=overwrite)
            finally:
                part.unlink(missing_ok=True)
        return stored

    def move(self, path: str, target: str, *, overwrite: bool = False) -> None:
        """Move within this place; see `RemoteFolder.move`."""
        path, target = self._clean(path, "move"), self._clean(target, "move")
        if leads_nowhere(self, path, target):
            return
        source, destination = self._inside(path), self._inside(target)
        with self._errors("move", path):
            if not stat.S_ISREG(source.lstat().st_mode):
                raise PermanentError(
                    "it is not a file", system=self._system, operation="move", record=path
                )
            destination.parent.mkdir(parents=True, exist_ok=True)
            _rename(source, destination, overwrite=overwrite)

    def delete(self, path: str) -> None:
        """Remove a file; do nothing if it is already gone."""
        path = self._clean(path, "delete")
        with self._errors("delete", path), suppress(FileNotFoundError, NotADirectoryError):
            self._inside(path).unlink()

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _clean(self, path: str, operation: str) -> str:
        return clean_path(path, system=self._system, operation=operation)

    def _inside(self, path: str, *, is_folder: bool = False) -> Path:
        """Return where a path is on the disk; refuse links that lead outside the root."""
        full = self._root / path
        followed = full if is_folder else full.parent
        if not followed.resolve().is_relative_to(self._root.resolve()):
            raise PermanentError(
                "a symbolic link leads out of the folder",
                system=self._system,
                operation="resolve",
                record=path,
            )
        return full

    def _changed(self, operation: str, path: str, what: str) -> FileChangedError:
        return FileChangedError(
            f"{what}; the next listing shows it as it is now",
            system=self._system,
            operation=operation,
            record=path,
        )

    @contextmanager
    def _errors(self, operation: str, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise self._mapped(exc, operation, path) from exc

    def _mapped(self, exc: OSError, operation: str, path: str) -> IntegrationError:
        why = exc.strerror or type(exc).__name__

        def error(kind: type[IntegrationError], message: str) -> IntegrationError:
            return kind(message, system=self._system, operation=operation, record=path or ".")

        if isinstance(exc, FileExistsError):
            return error(TargetExistsError, "there is a file of that name already")
        if isinstance(exc, FileNotFoundError | NotADirectoryError):
            if operation in ("read", "move"):
                return self._changed(operation, path, "it vanished since it was listed")
            return error(
                MisconfiguredError, "there is no such folder; make it, or correct its name"
            )
        if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return error(
                MisconfiguredError,
                f"no permission ({why}); let the user that runs the flows read and write there",
            )
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            return error(PermanentError, f"no room ({why}); make room on that disk")
        if exc.errno == errno.EXDEV:
            return error(PermanentError, "the two folders are on different disks; keep both on one")
        if exc.errno in (errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN):
            return error(UnreachableError, f"the disk does not answer ({why}); is its server up?")
        if exc.errno in (errno.EIO, errno.ESTALE, errno.EBUSY):
            return error(UpstreamFailedError, f"the disk failed ({why})")
        return error(PermanentError, why)


def _described(path: str, status: os.stat_result) -> RemoteFile:
    version = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
    return RemoteFile(path, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC), version)


def _rename(source: Path, target: Path, *, overwrite: bool) -> None:
    if overwrite:
        source.replace(target)
    else:
        _rename_exclusively(source, target)
    for folder in {source.parent, target.parent}:
        _sync(folder)


def _rename_exclusively(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        if not source.samefile(target):
            raise
        if source.lstat().st_nlink == 1:
            # The same name written in two ways: through a link to its folder, or in another
            # case on a disk that ignores case.
            source.replace(target)
            return
        # Both names lead to one file: an earlier move was interrupted between its two steps.
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # A disk without hard links (exFAT, some network shares): the check and the rename
        # are then two steps.
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from exc
        source.replace(target)
        return
    source.unlink()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
