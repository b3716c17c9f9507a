"""A folder of Google Drive as a place that holds files.

The API is called directly, with seven kinds of request: Google's client library ships the
descriptions of all their services, retries by itself, and can send uploads only to Google.
Documents that Drive edits itself have no content to download and are not listed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, BinaryIO

import httpx

from blocks.errors import (
    MisconfiguredError,
    PermanentError,
    UpstreamFailedError,
    UpstreamRejectedError,
)
from tasks.core import threads
from tasks.core.connectors.folders.google_drive_errors import drive_errors, drive_refusal
from tasks.core.connectors.folders.google_drive_upload import ResumableUpload
from tasks.core.connectors.folders.moves import leads_nowhere
from tasks.core.connectors.folders.paths import clean_path, listed_path, parent
from tasks.core.connectors.folders.protocol import FileChangedError, RemoteFile, TargetExistsError
from tasks.core.connectors.folders.ranges import RangedReader
from tasks.core.connectors.folders.streams import ExactContent, Watched, buffered
from tasks.core.connectors.http.redaction import redact_httpx_log

_FOLDER = "application/vnd.google-apps.folder"
_FIELDS = "id,name,size,mimeType,modifiedTime,md5Checksum,headRevisionId,webViewLink"
_SHARED = {"supportsAllDrives": "true"}
_UPLOAD = {"uploadType": "resumable"}


class DriveFiles:
    """The files below one folder, by their names.

    Drive allows several files with the same name; where that is ambiguous, it is an error.

    Args:
        client: The API's client, with tokens; closed by `close`.
        system: Name of this place in errors.
        root_id: The folder that all paths start from.
        sleep: Waits for that many seconds.
    """

    def __init__(
        self,
        client: httpx.Client,
        *,
        system: str,
        root_id: str,
        sleep: Callable[[float], None] = threads.sleep,
    ) -> None:
        self._client = client
        self._system = system
        self._folders = {"": root_id}
        self._sleep = sleep
        redact_httpx_log()

    @property
    def system(self) -> str:
        """Name of this place in errors."""
        return self._system

    def list_files(self, folder: str, *, recursive: bool = False) -> Iterator[RemoteFile]:
        """Yield the files of a folder; see `RemoteFolder.list_files`."""
        folder = clean_path(folder, system=self._system, operation="list", may_be_root=True)
        top = self._folder_id(folder, "list")
        if top is None:
            raise MisconfiguredError(
                "there is no such folder; make it, or correct the path",
                system=self._system,
                operation="list",
                record=folder,
            )
        waiting = [(folder, top)]
        while waiting:
            current, folder_id = waiting.pop()
            for entry in self._entries(f"{_quoted(folder_id)} in parents", "list", folder):
                path = listed_path(current, entry["name"], system=self._system)
                if path is None:
                    continue
                if entry["mimeType"] == _FOLDER:
                    if recursive:
                        waiting.append((path, entry["id"]))
                elif "size" in entry:
                    yield _described(path, entry)

    def stat(self, path: str) -> RemoteFile | None:
        """Return the file as it is now, or None if there is none."""
        path = self._clean(path, "look up")
        entry = self._find(path, "look up")
        return _described(path, entry) if entry else None

    def link(self, path: str) -> str | None:
        """Return the address where people with access see the file in a browser."""
        entry = self._find(self._clean(path, "look up"), "look up")
        return entry.get("webViewLink") if entry else None

    @contextmanager
    def open(self, file: RemoteFile) -> Iterator[BinaryIO]:
        """Open for reading; see `RemoteFolder.open`. The content is verified at its end."""
        path = self._clean(file.path, "read")
        entry = self._find(path, "read")
        if entry is None or _version(entry) != file.version:
            what = "vanished" if entry is None else "changed"
            raise FileChangedError(
                f"it {what} since it was listed; the next listing shows it as it is now",
                system=self._system,
                operation="read",
                record=path,
            )
        digest = hashlib.md5(usedforsecurity=False)

        def check_content() -> None:
            if digest.hexdigest() != entry["md5Checksum"]:
                raise UpstreamFailedError(
                    "the content was damaged on its way; try again",
                    system=self._system,
                    operation="read",
                    record=path,
                )

        query = {"alt": "media", **_SHARED}
        with (
            drive_errors(self._system, "read", path),
            self._client.stream("GET", f"/drive/v3/files/{entry['id']}", params=query) as answer,
        ):
            if not answer.is_success:
                answer.read()
                self._raise_for(answer, "read", path)
            reads = Watched(
                RangedReader(answer.iter_bytes()),
                errors=lambda: drive_errors(self._system, "read", path),
                seen=digest.update,
                at_end=check_content,
            )
            with buffered(reads) as content:
                yield content

    def put(
        self, path: str, content: BinaryIO, *, size: int, overwrite: bool = False
    ) -> RemoteFile:
        """Store a file whole or not at all; see `RemoteFolder.put`.

        Overwriting adds a revision to the same file, so that links to it stay valid.
        """
        path = self._clean(path, "put")
        existing = self._find(path, "put")
        if existing and not overwrite:
            raise self._exists("put", path)
        exact = ExactContent(content, size, system=self._system, operation="put", record=path)
        target = "/upload/drive/v3/files"
        if existing:
            session = self._call("PATCH", f"{target}/{existing['id']}", "put", path, _UPLOAD)
        else:
            folder_id = self._made_folder_id(parent(path), "put")
            metadata = {"name": path.rpartition("/")[2], "parents": [folder_id]}
            session = self._call("POST", target, "put", path, _UPLOAD, json=metadata)
        upload = ResumableUpload(
            self._client,
            self._session_url(session, path),
            system=self._system,
            path=path,
            sleep=self._sleep,
        )
        return _described(path, upload.send(exact, size))

    def move(self, path: str, target: str, *, overwrite: bool = False) -> None:
        """Move within this place; see `RemoteFolder.move`."""
        path, target = self._clean(path, "move"), self._clean(target, "move")
        if leads_nowhere(self, path, target):
            return
        entry = self._find(path, "move")
        if entry is None:
            raise FileChangedError(
                "it vanished since it was listed; somebody else was faster",
                system=self._system,
                operation="move",
                record=path,
            )
        replaced = self._find(target, "move")
        if replaced and not overwrite:
            raise self._exists("move", path)
        query = {
            "addParents": self._made_folder_id(parent(target), "move"),
            "removeParents": self._folder_id(parent(path), "move"),
        }
        name = target.rpartition("/")[2]
        self._call(
            "PATCH", f"/drive/v3/files/{entry['id']}", "move", path, query, json={"name": name}
        )
        if replaced:
            self._trash(replaced["id"], "move", path)

    def delete(self, path: str) -> None:
        """Move a file to the trash; do nothing if it is already gone."""
        path = self._clean(path, "delete")
        entry = self._find(path, "delete")
        if entry:
            self._trash(entry["id"], "delete", path)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _trash(self, file_id: str, operation: str, path: str) -> None:
        # Trashing needs less permission than deleting on shared drives, and can be undone.
        self._call(
            "PATCH", f"/drive/v3/files/{file_id}", operation, path, {}, json={"trashed": True}
        )

    def _find(self, path: str, operation: str) -> dict[str, Any] | None:
        folder_id = self._folder_id(parent(path), operation)
        if folder_id is None:
            return None
        name = path.rpartition("/")[2]
        query = f"{_quoted(folder_id)} in parents and name = {_quoted(name)}"
        found = [
            entry
            for entry in self._entries(f"{query} and mimeType != '{_FOLDER}'", operation, path)
            if entry["name"] == name and "size" in entry
        ]
        if len(found) > 1:
            raise PermanentError(
                f"there are {len(found)} files of that name; delete or rename all but one in Drive",
                system=self._system,
                operation=operation,
                record=path,
            )
        return found[0] if found else None

    def _folder_id(self, path: str, operation: str) -> str | None:
        if path in self._folders:
            return self._folders[path]
        above = self._folder_id(parent(path), operation)
        if above is None:
            return None
        name = path.rpartition("/")[2]
        query = f"{_quoted(above)} in parents and name = {_quoted(name)}"
        for entry in self._entries(f"{query} and mimeType = '{_FOLDER}'", operation, path):
            if entry["name"] == name:  # a search ignores case
                self._folders[path] = str(entry["id"])
                return self._folders[path]
        return None

    def _made_folder_id(self, path: str, operation: str) -> str:
        found = self._folder_id(path, operation)
        if found:
            return found
        metadata = {
            "name": path.rpartition("/")[2],
            "mimeType": _FOLDER,
            "parents": [self._made_folder_id(parent(path), operation)],
        }
        made = self._call("POST", "/drive/v3/files", operation, path, {}, json=metadata)
        self._folders[path] = str(made.json()["id"])
        return self._folders[path]

    def _entries(self, query: str, operation: str, path: str) -> Iterator[dict[str, Any]]:
        parameters = {
            "q": f"{query} and trashed = false",
            "fields": f"nextPageToken,files({_FIELDS})",
            "pageSize": "1000",
            "includeItemsFromAllDrives": "true",
        }
        while True:
            page = self._call("GET", "/drive/v3/files", operation, path, parameters).json()
            yield from page.get("files", [])
            if not page.get("nextPageToken"):
                return
            parameters["pageToken"] = page["nextPageToken"]

    def _call(
        self,
        method: str,
        url: str,
        operation: str,
        path: str,
        query: dict[str, Any],
        *,
        json: Any = None,
    ) -> httpx.Response:
        with drive_errors(self._system, operation, path or "."):
            response = self._client.request(
                method, url, params={"fields": _FIELDS, **_SHARED, **query}, json=json
            )
        self._raise_for(response, operation, path)
        return response

    def _raise_for(self, response: httpx.Response, operation: str, path: str) -> None:
        error = drive_refusal(response, self._system, operation, path or ".")
        if isinstance(error, UpstreamRejectedError) and response.status_code == 404:
            # The id was looked up a moment ago.
            raise MisconfiguredError(
                "the folder is not there or not shared with this account; share it as editor",
                system=self._system,
                operation=operation,
                record=path or ".",
            )
        if error:
            raise error

    def _session_url(self, response: httpx.Response, path: str) -> httpx.URL:
        url = httpx.URL(response.headers.get("location", ""))
        if (url.scheme, url.netloc) != (self._client.base_url.scheme, self._client.base_url.netloc):
            # The credentials would go there.
            raise UpstreamFailedError(
                "the upload session is at another address; refused",
                system=self._system,
                operation="put",
                record=path,
            )
        return url

    def _exists(self, operation: str, path: str) -> TargetExistsError:
        return TargetExistsError(
            "there is a file of that name already; allow overwriting, or use another name",
            system=self._system,
            operation=operation,
            record=path,
        )

    def _clean(self, path: str, operation: str) -> str:
        return clean_path(path, system=self._system, operation=operation)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _version(entry: dict[str, Any]) -> str:
    return f"{entry['id']}.{entry.get('headRevisionId') or entry['md5Checksum']}"


def _described(path: str, entry: dict[str, Any]) -> RemoteFile:
    modified_at = datetime.fromisoformat(entry["modifiedTime"]).astimezone(UTC)
    return RemoteFile(path, int(entry["size"]), modified_at, _version(entry))
