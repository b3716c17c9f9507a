"""Decides which files a run imports, and in which order: what it left unfinished goes first."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from blocks.errors import MisconfiguredError
from tasks.core import threads
from tasks.core.connectors.folders.paths import simplify
from tasks.core.connectors.folders.protocol import RemoteFile, RemoteFolder
from tasks.core.sync.file_import.after_import import folder_pattern
from tasks.core.sync.file_import.ledger import Unfinished
from tasks.core.ui_labels import ui_label

# What clients and editors call a file that they have not finished writing.
TEMPORARY_NAMES = (".*", "~*", "*~", "*.tmp", "*.temp", "*.part", "*.partial", "*.filepart",
                   "*.crdownload", "*.swp", "*.uploading")  # fmt: skip


class FileSelection(BaseModel):
    """Which files of a folder are taken, and when they count as completely written."""

    model_config = ConfigDict(extra="forbid", field_title_generator=ui_label)

    include: list[str] = Field(
        default=["*"], description="Name patterns to take, e.g. *.csv; case matters not."
    )
    exclude: list[str] = Field(
        default=list(TEMPORARY_NAMES),
        description="Name patterns to leave; as a rule what is still being written.",
    )
    recursive: bool = Field(default=False, description="Look into sub-folders, too.")
    stable_for_s: float = Field(
        default=2,
        ge=0,
        le=300,
        description="List twice, so many seconds apart; what changed is left for the next run.",
    )
    min_age_s: float = Field(
        default=0,
        ge=0,
        description="Leave files changed less than so many seconds ago, by the server's clock.",
    )
    done_file: str | None = Field(
        default=None,
        description="Take a file only when this one lies beside it, e.g. {name}.done.",
    )
    sort_by: Literal["name", "modified_at", "size"] = Field(
        default="name", description="The order in which files are imported."
    )
    descending: bool = Field(default=False, description="Largest, newest or last name first.")
    max_files: int | None = Field(
        default=None, ge=1, description="Take at most so many a run, after sorting."
    )


@dataclass(frozen=True, slots=True)
class WaitingFile:
    """A file that is left for the next run, and why."""

    file: RemoteFile
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds for us.

    Attributes:
        ready: To import now, in order.
        waiting: Left for the next run.
        duplicates: Listed again in a version that was imported and moved away before.
    """

    ready: list[RemoteFile]
    waiting: list[WaitingFile]
    duplicates: list[RemoteFile]


def find_ready_files(
    folder: RemoteFolder,
    path: str,
    options: FileSelection,
    *,
    finished: Callable[[Iterable[RemoteFile]], set[str]],
    ignore_folders: Iterable[str] = (),
    sleep: Callable[[float], None] = threads.sleep,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Listing:
    """List a folder and decide which files are ready.

    Args:
        folder: The place.
        path: The folder in it.
        options: What to take.
        finished: Tells which of the files were imported before, as `Ledger.finished`.
        ignore_folders: Sub-folders never looked into: the archive and error folders, with their
            placeholders.
        sleep: Waits between the two listings.
        clock: Aware UTC now.

    Raises:
        MisconfiguredError: The folder itself is one of those to be ignored.
        IntegrationError: From the place.
    """
    patterns = [pattern for name in ignore_folders if (pattern := folder_pattern(name))]
    ignored = re.compile("|".join(f"(?:{pattern})/" for pattern in patterns) or r"(?!)")
    if ignored.match(f"{simplify(path)}/"):
        raise MisconfiguredError(
            "it is, or lies in, the archive or error folder, which are never looked into; give "
            "those another place",
            system=folder.system,
            operation="list",
            record=path,
        )
    listed = _list(folder, path, options, ignored)
    candidates = [file for file in listed.values() if _selected(file, options)]
    done_before = finished(candidates)
    duplicates = [file for file in candidates if file.path in done_before]
    candidates = [file for file in candidates if file.path not in done_before]
    waiting: list[WaitingFile] = []
    if candidates and options.stable_for_s:
        sleep(options.stable_for_s)
        listed = _list(folder, path, options, ignored)
        candidates = _unchanged(candidates, listed, waiting)
    if options.min_age_s:
        candidates = _old_enough(candidates, listed.values(), options.min_age_s, clock(), waiting)
    if options.done_file:
        candidates = _with_done_file(candidates, listed, options.done_file, waiting)
    ready = sorted(candidates, key=_order(options.sort_by), reverse=options.descending)
    taken = ready[: options.max_files]
    waiting += [
        WaitingFile(file, f"{len(taken)} files a run are the limit") for file in ready[len(taken) :]
    ]
    return Listing(taken, waiting, duplicates)


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
        unfinished: This run's own, from `FileLedger.unfinished`: none in a first attempt.
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


def done_file_of(path: str, pattern: str) -> str:
    """The path of the file that says that `path` is completely written.

    Args:
        path: The data file's.
        pattern: With "{name}" for its name or "{stem}" for its name without extension.
    """
    parent, slash, name = path.rpartition("/")
    stem = name.rpartition(".")[0] or name
    return f"{parent}{slash}{pattern.replace('{name}', name).replace('{stem}', stem)}"


def _list(
    folder: RemoteFolder, path: str, options: FileSelection, ignored: re.Pattern[str]
) -> dict[str, RemoteFile]:
    found = {}
    for file in folder.list_files(path, recursive=options.recursive):
        threads.check_cancelled()
        if not ignored.match(file.path):
            found[file.path] = file
    return found


def _selected(file: RemoteFile, options: FileSelection) -> bool:
    name = file.name.casefold()
    if options.done_file and _is_done_file(file.name, options.done_file):
        return False

    def matches(patterns: list[str]) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern.casefold()) for pattern in patterns)

    return matches(options.include) and not matches(options.exclude)


def _is_done_file(name: str, pattern: str) -> bool:
    around = pattern.replace("{stem}", "{name}").partition("{name}")
    return name.startswith(around[0]) and name.endswith(around[2] or around[0])


def _unchanged(
    candidates: list[RemoteFile], listed: dict[str, RemoteFile], waiting: list[WaitingFile]
) -> list[RemoteFile]:
    kept = []
    for file in candidates:
        now = listed.get(file.path)
        if now is None:
            waiting.append(WaitingFile(file, "it vanished between two listings"))
        elif now.version != file.version:
            waiting.append(WaitingFile(now, "it is still being written"))
        else:
            kept.append(now)
    return kept


def _old_enough(
    candidates: list[RemoteFile],
    listed: Iterable[RemoteFile],
    min_age_s: float,
    now: datetime,
    waiting: list[WaitingFile],
) -> list[RemoteFile]:
    # A server whose clock runs ahead stamps files in our future: its newest stamp is then the
    # best that is known of its now.
    server_now = max([now, *(file.modified_at for file in listed)])
    kept = []
    for file in candidates:
        if server_now - file.modified_at < timedelta(seconds=min_age_s):
            waiting.append(WaitingFile(file, f"it is younger than {min_age_s:g} s"))
        else:
            kept.append(file)
    return kept


def _with_done_file(
    candidates: list[RemoteFile],
    listed: dict[str, RemoteFile],
    pattern: str,
    waiting: list[WaitingFile],
) -> list[RemoteFile]:
    kept = []
    for file in candidates:
        done_file = done_file_of(file.path, pattern)
        if done_file in listed:
            kept.append(file)
        else:
            waiting.append(WaitingFile(file, f"its done file {done_file!r} is not there yet"))
    return kept


def _order(sort_by: str) -> Callable[[RemoteFile], tuple[object, ...]]:
    if sort_by == "modified_at":
        return lambda file: (file.modified_at, file.path)
    if sort_by == "size":
        return lambda file: (file.size, file.path)
    return lambda file: (file.path,)
