"""What a run has to do: first what an earlier attempt of it left unfinished, then what is new."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tasks.core.connectors.folders.protocol import RemoteFile, RemoteFolder
from tasks.core.sync.file_import.ledger import Unfinished


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A file to import.

    Attributes:
        file: Where and what it is now.
        original: As it was found by the attempt that this one continues.
        again: It was imported before in this very version, and is to be imported again.
    """

    file: RemoteFile
    original: RemoteFile | None = None
    again: bool = False

    @property
    def name(self) -> str:
        """The name under which it was found."""
        return (self.original or self.file).name


def plan_work(
    folder: RemoteFolder, unfinished: Iterable[Unfinished], ready: Iterable[RemoteFile]
) -> list[WorkItem]:
    """Put together what a run left unfinished and what it finds.

    A failed file is taken from the error folder, where the operator may have mended it; or from
    where it was first found, if it was dropped there again.

    Args:
        folder: The place.
        unfinished: This run's own, from `Ledger.unfinished`: none in a first attempt.
        ready: What was just listed, in order.
    """
    listed = {file.path: file for file in ready}
    items = []
    for entry in unfinished:
        again = listed.get(entry.file.path)
        if entry.state in ("imported", "failing"):  # only its move is to be finished
            items.append(WorkItem(entry.file, entry.file))
            if again is not None and again.version == entry.file.version:
                del listed[entry.file.path]
            continue
        now = again or folder.stat(entry.found_at)
        listed.pop(entry.file.path, None)
        if now is not None:
            items.append(WorkItem(now, entry.file))
    return items + [WorkItem(file) for file in listed.values()]
