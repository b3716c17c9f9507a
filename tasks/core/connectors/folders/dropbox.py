"""A folder of a Dropbox account as a place that holds files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from typing import Any, BinaryIO

from dropbox import files
from dropbox.content_hash import DropboxContentHasher
from dropbox.exceptions import ApiError

from blocks.errors import UpstreamFailedError
from tasks.core.connectors.folders.dropbox_errors import dropbox_errors, tags_of
from tasks.core.connectors.folders.moves import leads_nowhere
from tasks.core.connectors.folders.paths import clean_path, listed_path
from tasks.core.connectors.folders.protocol import FileChangedError, RemoteFile
from tasks.core.connectors.folders.streams import ExactContent, Watched, buffered, read_fully

# Dropbox takes 150 MiB at once, but the SDK takes only bytes: smaller pieces keep memory flat.
_UPLOAD_BYTES = 8 * 1024 * 1024


class DropboxFiles:
    """The files below one folder of an account; names ignore case.

    Items that cannot be downloaded (such as Google documents) are not listed.
    """

    def __init__(self, client: Any, *, system: str, root: str = "") -> None:
        """Use a client.

        Args:
            client: A `dropbox.Dropbox`; closed by `close`.
            system: Name of this place in errors.
            root: The folder of the account that all paths start from; "" is all of it.
        """
        self._client = client
        self._system = system
        self._root = "/" + root.strip("/") if root.strip("/") else ""

    @property
    def system(self) -> str:
        """Name of this place in errors, e.g. "dropbox://acme-account/Partners"."""
        return self._system

    def list_files(self, folder: str, *, recursive: bool = False) -> Iterator[RemoteFile]:
        """Yield the files of a folder; see `RemoteFolder.list_files`."""
        folder = clean_path(folder, system=self._system, operation="list", may_be_root=True)
        remote = self._remote(folder)
        depth = len(remote.split("/"))
        with dropbox_errors(self._system, "list", folder or "."):
            page = self._client.files_list_folder(remote, recursive=recursive)
            while True:
                for entry in page.entries:
                    if isinstance(entry, files.FileMetadata) and entry.is_downloadable:
                        names = entry.path_display.split("/")[depth:]
                        path = listed_path(folder, *names, system=self._system)
                        if path is not None:
                            yield _described(path, entry)
                if not page.has_more:
                    return
                page = self._client.files_list_folder_continue(page.cursor)

    def stat(self, path: str) -> RemoteFile | None:
        """Return the file as it is now, or None if there is none."""
        path = self._clean(path, "look up")
        with dropbox_errors(self._system, "look up", path):
            try:
                found = self._client.files_get_metadata(self._remote(path))
            except ApiError as exc:
                if "not_found" in tags_of(exc.error):
                    return None
                raise
        return _described(path, found) if isinstance(found, files.FileMetadata) else None

    @contextmanager
    def open(self, file: RemoteFile) -> Iterator[BinaryIO]:
        """Open for reading; see `RemoteFolder.open`. The content is verified at its end."""
        path = self._clean(file.path, "read")
        with dropbox_errors(self._system, "read", path):
            found, answer = self._client.files_download(self._remote(path))
        hasher = DropboxContentHasher()

        def check_content() -> None:
            if hasher.hexdigest() != found.content_hash:
                raise UpstreamFailedError(
                    "the content was damaged on its way; try again",
                    system=self._system,
                    operation="read",
                    record=path,
                )

        with answer:
            if found.rev != file.version:
                raise FileChangedError(
                    "it changed since it was listed; the next listing shows it as it is now",
                    system=self._system,
                    operation="read",
                    record=path,
                )
            reads = Watched(
                answer.raw,
                errors=lambda: dropbox_errors(self._system, "read", path),
                seen=lambda piece: hasher.update(piece.tobytes()),
                at_end=check_content,
            )
            with buffered(reads) as content:
                yield content

    def put(
        self, path: str, content: BinaryIO, *, size: int, overwrite: bool = False
    ) -> RemoteFile:
        """Store a file whole or not at all; see `RemoteFolder.put`."""
        path = self._clean(path, "put")
        exact = ExactContent(content, size, system=self._system, operation="put", record=path)
        commit: dict[str, Any] = {
            "path": self._remote(path),
            "mode": files.WriteMode.overwrite if overwrite else files.WriteMode.add,
            "strict_conflict": not overwrite,  # equal content is a conflict too
        }
        with dropbox_errors(self._system, "put", path):
            if size <= _UPLOAD_BYTES:
                body = read_fully(exact, size + 1)
                exact.check_ended()
                return _described(path, self._client.files_upload(body, **commit))
            return _described(path, self._put_in_pieces(exact, commit))

    def move(self, path: str, target: str, *, overwrite: bool = False) -> None:
        """Move within this place; see `RemoteFolder.move`.

        Dropbox never overwrites in a move: the target is then deleted first.
        """
        path, target = self._clean(path, "move"), self._clean(target, "move")
        if leads_nowhere(self, path, target):
            return
        source, destination = self._remote(path), self._remote(target)
        is_other_file = path.casefold() != target.casefold()
        with dropbox_errors(self._system, "move", path):
            try:
                self._client.files_move_v2(source, destination)
            except ApiError as exc:
                if not overwrite or not is_other_file or "conflict" not in tags_of(exc.error):
                    raise
                self.delete(target)
                self._client.files_move_v2(source, destination)

    def delete(self, path: str) -> None:
        """Remove a file; do nothing if it is already gone."""
        found = self.stat(path)
        if found is None:
            return
        with dropbox_errors(self._system, "delete", found.path):
            try:
                # Without the revision Dropbox would delete a folder with all its content.
                self._client.files_delete_v2(self._remote(found.path), parent_rev=found.version)
            except ApiError as exc:
                if "not_found" not in tags_of(exc.error):
                    raise

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _put_in_pieces(self, content: ExactContent, commit: dict[str, Any]) -> Any:
        """Upload in a session: the file appears only when it is finished."""
        piece = read_fully(content, _UPLOAD_BYTES)
        session = self._client.files_upload_session_start(piece)
        cursor = files.UploadSessionCursor(session.session_id, len(piece))
        while piece := read_fully(content, _UPLOAD_BYTES):
            self._client.files_upload_session_append_v2(piece, cursor)
            cursor.offset += len(piece)
        return self._client.files_upload_session_finish(b"", cursor, files.CommitInfo(**commit))

    def _clean(self, path: str, operation: str) -> str:
        return clean_path(path, system=self._system, operation=operation)

    def _remote(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root


def _described(path: str, found: Any) -> RemoteFile:
    return RemoteFile(path, found.size, found.server_modified.replace(tzinfo=UTC), found.rev)
