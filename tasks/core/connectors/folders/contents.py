"""Compares the contents of stored files where their metadata is not enough."""

from __future__ import annotations

import hashlib

from tasks.core.connectors.folders.protocol import RemoteFile, RemoteFolder
from tasks.core.connectors.folders.streams import read_fully
from tasks.core.threads import check_cancelled

_READ_BYTES = 1024 * 1024


def find_content(folder: RemoteFolder, path: str, *, size: int, sha256: str) -> RemoteFile | None:
    """Return the file at a path if it has this content, else None.

    Args:
        folder: The place.
        path: The file's path.
        size: Bytes; a file of another size is not read.
        sha256: Digest of the content, in hexadecimal.
    """
    found = folder.stat(path)
    if found is None or found.size != size:
        return None
    digest = hashlib.sha256()
    with folder.open(found) as content:
        while piece := content.read(_READ_BYTES):
            check_cancelled()
            digest.update(piece)
    return found if digest.hexdigest() == sha256 else None


def have_same_content(folder: RemoteFolder, one: RemoteFile, other: RemoteFile) -> bool:
    """Return whether two files of a place are equal; read up to the first difference."""
    if one.size != other.size:
        return False
    with folder.open(one) as content, folder.open(other) as other_content:
        while piece := content.read(_READ_BYTES):
            check_cancelled()
            if read_fully(other_content, len(piece)) != piece:
                return False
    return True
