"""Records of a stand-in that outlive it, so that the ids it gave mean the same after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson


class KeptRecords:
    """Records in memory, written to a file whenever the stand-in says so.

    Args:
        path: The file; None to forget everything at the end.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def load(self) -> list[dict[str, Any]]:
        """What was kept last; empty the first time."""
        if self._path is None or not self._path.exists():
            return []
        records: list[dict[str, Any]] = orjson.loads(self._path.read_bytes())
        return records

    def keep(self, records: list[dict[str, Any]]) -> None:
        """Replace what is kept."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._path.with_suffix(".part")
            unfinished.write_bytes(orjson.dumps(records))
            unfinished.replace(self._path)
