"""Keeps every path inside its place's root."""

from __future__ import annotations

import logging
import uuid
from typing import NoReturn

from blocks.errors import PermanentError

_LOGGER = logging.getLogger(__name__)
# A character takes up to 4 bytes and a file name has room for 255 bytes on most disks.
_PART_NAME_CHARACTERS = 40


def clean_path(path: str, *, system: str, operation: str, may_be_root: bool = False) -> str:
    """Normalise a path: relative, parts separated by single "/", no "." parts.

    Args:
        path: Relative to the place's root.
        system: Name of the place in errors.
        operation: What is being done, for the error.
        may_be_root: Whether "", "." and "/" may mean the root itself.

    Returns:
        The path; "" for the root.

    Raises:
        PermanentError: It is absolute, has a ".." part or a NUL, is not encodable as UTF-8, or
            names the root where a file is expected.
    """

    def refuse(why: str) -> NoReturn:
        raise PermanentError(
            f"the path {why}; give one relative to the root, without '..'",
            system=system,
            operation=operation,
            record=path,
        )

    if may_be_root and path == "/":
        return ""
    if path.startswith("/"):
        refuse("is absolute")
    if "\0" in path:
        refuse("holds a NUL character")
    if not _is_encodable(path):
        refuse("is not valid Unicode")
    simplified = simplify(path)
    if ".." in simplified.split("/"):
        refuse("leads out of its folder")
    if not simplified and not may_be_root:
        refuse("names no file")
    return simplified


def simplify(path: str) -> str:
    """Return the path without "." parts and superfluous "/"; accept any path."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def join(folder: str, name: str) -> str:
    """Return the path of a name in a folder; "" is the root."""
    return f"{folder}/{name}" if folder else name


def parent(path: str) -> str:
    """Return the folder of a path; "" is the root."""
    return path.rpartition("/")[0]


def part_path(path: str) -> str:
    """Return a unique hidden name in the same folder, for a file that is still incomplete."""
    folder, _, name = path.rpartition("/")
    return join(folder, f".{name[:_PART_NAME_CHARACTERS]}.{uuid.uuid4().hex}.part")


def listed_path(folder: str, *names: str | bytes, system: str) -> str | None:
    """Return the path of a listed name, or None, with a warning, if no path can express it.

    Args:
        folder: The folder's normalised path.
        names: The folders in between, then the file; bytes are read as UTF-8.
        system: Name of the place in the warning.
    """
    path = folder
    for name in names:
        text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
        if text in ("", ".", "..") or "/" in text or "\0" in text or not _is_encodable(text):
            _LOGGER.warning(
                "%s: list %r: left out the name %r, which no path can express; "
                "have it renamed, with a name in UTF-8",
                system,
                path,
                text.encode("utf-8", "surrogateescape"),
            )
            return None
        path = join(path, text)
    return path


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
