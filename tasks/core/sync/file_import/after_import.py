"""Where a file goes after its import, and what is left beside one that failed."""

from __future__ import annotations

import io
import json
import re
import string
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from blocks.errors import MisconfiguredError, PermanentError
from tasks.core.connectors.folders.paths import simplify
from tasks.core.connectors.folders.protocol import RemoteFolder

Collision = Literal["number", "overwrite", "fail"]
_FILLED = {
    "date": r"\d{4}-\d{2}-\d{2}",
    "year": r"\d{4}",
    "month": r"\d{2}",
    "day": r"\d{2}",
    "run_id": r"(?:[0-9a-f-]{36}|by hand)",
}


class AfterImport(BaseModel):
    """What happens to files after the import."""

    model_config = ConfigDict(extra="forbid")

    on_success: Literal["move", "delete", "keep"] = Field(
        default="move", description="Move imported files to the archive, delete or keep them."
    )
    archive_folder: str = Field(
        default="archive/{date}",
        description="Where imported files go; knows {date}, {year}, {month}, {day}, {run_id}.",
    )
    error_folder: str = Field(
        default="error",
        description="Where files go that could not be imported, with the reason beside them.",
    )
    on_collision: Collision = Field(
        default="number",
        description="If the name is taken there: number the file, overwrite, or fail.",
    )
    on_duplicate: Literal["move", "import", "keep"] = Field(
        default="move",
        description="A file that was imported before in this very version: move it to the "
        "archive unread, import it again, or leave it.",
    )

    @field_validator("archive_folder", "error_folder")
    @classmethod
    def _known_placeholders(cls, value: str) -> str:
        try:
            value.format_map(_placeholders(datetime(2000, 1, 1), "run"))  # noqa: DTZ001
        except (KeyError, ValueError, IndexError, AttributeError) as exc:
            raise ValueError(
                f"{value!r} has an unknown placeholder; known are {{date}}, {{year}}, {{month}}, "
                "{day} and {run_id}"
            ) from exc
        return value


def archive_path(options: AfterImport, path: str, *, at: datetime, run_id: str) -> str:
    """Where an imported file is moved to, before collisions are looked at."""
    return _join(options.archive_folder.format_map(_placeholders(at, run_id)), path)


def error_path(options: AfterImport, path: str, *, at: datetime, run_id: str) -> str:
    """Where a failed file is moved to, before collisions are looked at."""
    return _join(options.error_folder.format_map(_placeholders(at, run_id)), path)


def folder_pattern(template: str) -> str:
    """A regular expression for all folders that an archive or error folder's template can name.

    Args:
        template: Such as "archive/{year}/{month}".

    Returns:
        It matches from the start of a path in its one form; "" for the root.
    """
    parts: list[str] = []
    for literal, field, spec, conversion in string.Formatter().parse(simplify(template)):
        parts.append(re.escape(literal))
        if field is not None:
            is_plain = not spec and not conversion
            parts.append(_FILLED.get(field, "[^/]+") if is_plain else "[^/]+")
    return "".join(parts)


def free_path(folder: RemoteFolder, path: str, collision: Collision) -> str:
    """The path itself, or a numbered one if it is taken and the policy says so.

    Raises:
        PermanentError: It is taken and the policy is "fail", or a thousand numbers are taken.
    """
    if collision == "overwrite" or folder.stat(path) is None:
        return path
    if collision == "number":
        parent, slash, name = path.rpartition("/")
        stem, dot, extension = name.partition(".")
        for number in range(2, 1000):
            candidate = f"{parent}{slash}{stem}-{number}{dot}{extension}"
            if folder.stat(candidate) is None:
                return candidate
    raise PermanentError(
        "a file of that name is there already; clear it away, or let the import number or "
        "overwrite (on_collision)",
        system=folder.system,
        operation="move",
        record=path,
    )


def write_error_note(folder: RemoteFolder, path: str, note: Mapping[str, Any]) -> None:
    """Put `<path>.err.json` in place: what went wrong, where, and how to mend it."""
    text = json.dumps(note, indent=2, ensure_ascii=False).encode()
    folder.put(f"{path}.err.json", io.BytesIO(text), size=len(text), overwrite=True)


@contextmanager
def working_directory() -> Iterator[Path]:
    """A private directory for downloads, removed afterwards.

    Raises:
        MisconfiguredError: No temporary directory can be made.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="file-import-") as name:
            yield Path(name)
    except FileNotFoundError as exc:
        raise MisconfiguredError(
            "no temporary directory can be made; set TMPDIR to one with room",
            system="this machine",
            operation="make a temporary directory",
        ) from exc


def _join(folder: str, path: str) -> str:
    name = path.rpartition("/")[2]
    return f"{folder.strip('/')}/{name}" if folder.strip("/") else name


def _placeholders(at: datetime, run_id: str) -> dict[str, str]:
    return {
        "date": f"{at:%Y-%m-%d}",
        "year": f"{at:%Y}",
        "month": f"{at:%m}",
        "day": f"{at:%d}",
        "run_id": run_id,
    }
