"""Recognises a move of a file onto itself, which would otherwise look like a conflict."""

from __future__ import annotations

from tasks.core.connectors.folders.protocol import FileChangedError, RemoteFolder


def leads_nowhere(folder: RemoteFolder, path: str, target: str) -> bool:
    """Return whether a move's target is its source.

    Args:
        folder: The place.
        path: The file's path, as `clean_path` returns it.
        target: The target path, in the same form.

    Raises:
        FileChangedError: It is, and there is no such file.
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
