"""Knows a move that leads nowhere, so that no place takes a file for the one in its way."""

from __future__ import annotations

from tasks.core.connectors.folders.protocol import FileChangedError, RemoteFolder


def leads_nowhere(folder: RemoteFolder, path: str, target: str) -> bool:
    """Whether a file is to be moved to where it is.

    Args:
        folder: The place.
        path: Of the file, in its one form as `clean_path` gives it.
        target: Where to, in the same form.

    Raises:
        FileChangedError: That is so, and there is no such file.
    """
    if path != target:
        return False
    if folder.stat(path) is None:
        raise FileChangedError(
            "it vanished since it was listed; the next listing shows it as it is now",
            system=folder.system,
            operation="move",
            record=path,
        )
    return True
