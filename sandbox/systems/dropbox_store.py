"""One Dropbox account's files, kept in a folder that a person can look into."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_HASH_BLOCK_BYTES = 4 * 1024 * 1024
_MOST_CURSORS = 1000


class Refused(Exception):  # noqa: N818  # what the API answers, not a fault
    """The API's answer 409: the error union as it goes over the wire."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(json.dumps(error))
        self.error = error


def union(*tags: str, **fields: Any) -> dict[str, Any]:
    """A nested error of the API: "path", "not_found" make {".tag": "path", "path": {…}}."""
    inner: dict[str, Any] = {".tag": tags[-1], **fields}
    for tag in reversed(tags[:-1]):
        inner = {".tag": tag, tag: inner}
    return inner


@dataclass(frozen=True)
class Cursor:
    """Where a listing stands.

    Attributes:
        pending: Entries of this round that were not yet given.
        seen: The revision of everything that the client knows once they are, by lower-case path.
    """

    folder: str
    recursive: bool
    pending: tuple[dict[str, Any], ...]
    seen: dict[str, str]


class Store:
    """Files by the rules of Dropbox: paths ignore case, names keep theirs."""

    def __init__(self, files: Path, uploads: Path) -> None:
        for folder in (files, uploads):
            folder.mkdir(parents=True, exist_ok=True)
        self._files = files
        self._uploads = uploads
        self._hashes: dict[tuple[int, int, int], str] = {}
        self._cursors: dict[str, Cursor] = {}

    def find(self, path: str) -> Path | None:
        """What is at a path, or None; "" is the root."""
        found = self._files
        for part in _parts(path):
            there = found.iterdir() if found.is_dir() else ()
            named = next((path for path in there if path.name.lower() == part.lower()), None)
            if named is None:
                return None
            found = named
        return found

    def metadata(self, path: Path, *, tagged: bool = True) -> dict[str, Any]:
        """A file or folder as the API describes it."""
        display = "/" + path.relative_to(self._files).as_posix()
        common = {
            "name": path.name,
            "id": "id:" + hashlib.sha256(display.lower().encode()).hexdigest()[:22],
            "path_lower": display.lower(),
            "path_display": display,
        }
        if path.is_dir():
            return {".tag": "folder", **common} if tagged else common
        status = path.stat()
        modified_at = datetime.fromtimestamp(int(status.st_mtime), UTC)
        stamp = modified_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        file = {
            **common,
            "client_modified": stamp,
            "server_modified": stamp,
            "rev": _revision(path, display.lower()),
            "size": status.st_size,
            "is_downloadable": True,
            "content_hash": self._content_hash(path),
        }
        return {".tag": "file", **file} if tagged else file

    def begin_listing(self, folder: str, *, recursive: bool, from_now: bool = False) -> str:
        """A cursor before the first entry of a folder, or after its last one."""
        seen = self._revisions(folder, recursive=recursive)
        pending = () if from_now else self._entries(seen)
        return self._remember(Cursor(folder, recursive, pending, seen))

    def continue_listing(self, cursor_id: str, *, limit: int) -> dict[str, Any]:
        """The next page, and a cursor after it."""
        cursor = self._cursor(cursor_id)
        if not cursor.pending:
            cursor = self._changes(cursor)
        page, rest = cursor.pending[:limit], cursor.pending[limit:]
        after = Cursor(cursor.folder, cursor.recursive, rest, cursor.seen)
        return {"entries": page, "cursor": self._remember(after), "has_more": bool(rest)}

    def has_changes(self, cursor_id: str) -> bool:
        """Whether there would be entries."""
        cursor = self._cursor(cursor_id)
        return bool(cursor.pending or self._changes(cursor).pending)

    def place(self, source: Path, path: str, commit: dict[str, Any]) -> dict[str, Any]:
        """Let an upload appear at a path, by the commit's rules for conflicts."""
        mode = commit.get("mode", "add")
        mode = mode if isinstance(mode, dict) else {".tag": mode}
        there = self.find(path)
        may_replace = mode[".tag"] == "overwrite" or (
            mode[".tag"] == "update"
            and there is not None
            and _revision(there, path.lower()) == mode["update"]
        )
        if there is not None and not may_replace:
            same = there.is_file() and self._content_hash(there) == self._content_hash(source)
            if same and not commit.get("strict_conflict"):
                return self.metadata(there)
            kind = "file" if there.is_file() else "folder"
            if not commit.get("autorename"):
                raise Refused(union("conflict", kind))
            there, path = None, _renamed(path)
        target = there or self._new_path(path)
        source.replace(target)
        return self.metadata(target, tagged=False)

    def relocate(self, source: str, target: str, *, copy: bool) -> dict[str, Any]:
        """Move or copy; the target must be free."""
        found = self.find(source)
        if found is None:
            raise Refused(union("from_lookup", "not_found"))
        if self.find(target) is not None:
            raise Refused(union("to", "conflict", "file"))
        there = self._new_path(target)
        if copy:
            shutil.copy2(found, there)
        else:
            found.rename(there)
        return self.metadata(there)

    def new_upload(self) -> Path:
        """Where to put what is not yet in the account."""
        return self._uploads / uuid.uuid4().hex

    def upload(self, session_id: str) -> Path:
        """The upload of that id."""
        path = self._uploads / Path(session_id).name
        if not path.exists():
            raise Refused(union("not_found"))
        return path

    def make_folder(self, path: str) -> dict[str, Any]:
        """Make a folder and those above it."""
        if self.find(path) is not None:
            raise Refused(union("path", "conflict", "folder"))
        there = self._new_path(path)
        there.mkdir()
        return self.metadata(there, tagged=False)

    def delete(self, path: str, *, parent_rev: str | None) -> dict[str, Any]:
        """Delete a file, if it still has that revision, or a folder with all that is in it."""
        found = self.find(path)
        if found is None:
            raise Refused(union("path_lookup", "not_found"))
        described = self.metadata(found)
        if parent_rev is not None and described.get("rev") != parent_rev:
            raise Refused(union("path_write", "conflict", "file"))
        if found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink()
        return described

    def content_hash(self, content: bytes) -> str:
        """Dropbox's own hash: of the hashes of blocks of 4 MiB."""
        return _hash([content])

    def _new_path(self, path: str) -> Path:
        folder = self._files
        *above, name = _parts(path)
        for part in above:
            found = self.find((folder / part).relative_to(self._files).as_posix())
            folder = found or folder / part
            folder.mkdir(exist_ok=True)
        return folder / name

    def _revisions(self, folder: str, *, recursive: bool) -> dict[str, str]:
        root = self.find(folder)
        if root is None:
            raise Refused(union("path", "not_found"))
        if not root.is_dir():
            raise Refused(union("path", "not_folder"))
        paths = root.rglob("*") if recursive else root.iterdir()
        return {
            lower: _revision(path, lower)
            for path in sorted(paths)
            for lower in ["/" + path.relative_to(self._files).as_posix().lower()]
        }

    def _entries(self, lower_paths: Iterator[str] | dict[str, str]) -> tuple[dict[str, Any], ...]:
        found = [self.find(path) for path in lower_paths]
        return tuple(self.metadata(path) for path in found if path is not None)

    def _changes(self, cursor: Cursor) -> Cursor:
        now = self._revisions(cursor.folder, recursive=cursor.recursive)
        gone = tuple(
            {
                ".tag": "deleted",
                "name": path.rpartition("/")[2],
                "path_lower": path,
                "path_display": path,
            }
            for path in cursor.seen
            if path not in now
        )
        changed = self._entries(path for path in now if cursor.seen.get(path) != now[path])
        return Cursor(cursor.folder, cursor.recursive, gone + changed, now)

    def _cursor(self, cursor_id: str) -> Cursor:
        if cursor_id not in self._cursors:
            raise Refused(union("reset"))  # cursors do not outlive the process
        return self._cursors[cursor_id]

    def _remember(self, cursor: Cursor) -> str:
        cursor_id = uuid.uuid4().hex
        self._cursors[cursor_id] = cursor
        while len(self._cursors) > _MOST_CURSORS:
            self._cursors.pop(next(iter(self._cursors)))
        return cursor_id

    def _content_hash(self, path: Path) -> str:
        status = path.stat()
        key = (status.st_ino, status.st_mtime_ns, status.st_size)
        if key not in self._hashes:
            with path.open("rb") as content:
                blocks = iter(lambda: content.read(_HASH_BLOCK_BYTES), b"")
                self._hashes[key] = _hash(blocks)
        return self._hashes[key]


def _hash(pieces: Iterator[bytes] | list[bytes]) -> str:
    overall = hashlib.sha256()
    for piece in pieces:
        for start in range(0, len(piece), _HASH_BLOCK_BYTES):
            overall.update(hashlib.sha256(piece[start : start + _HASH_BLOCK_BYTES]).digest())
    return overall.hexdigest()


def _parts(path: str) -> list[str]:
    parts = path.strip("/").split("/") if path.strip("/") else []
    if {"", ".", ".."} & set(parts) or "\0" in path:
        raise Refused(union("path", "malformed_path"))
    return parts


def _revision(path: Path, lower: str) -> str:
    if path.is_dir():
        return "folder"
    status = path.stat()
    text = f"{lower}-{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _renamed(path: str) -> str:
    stem, dot, extension = path.rpartition(".")
    return f"{stem} ({uuid.uuid4().hex[:4]}){dot}{extension}" if dot else f"{path} (1)"
