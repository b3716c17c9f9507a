"""The file that says which rows an import rejected, and why, so that they can be mended."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tasks.core.connectors.folders.protocol import RemoteFolder
from tasks.core.formats.records.record import Reject


class RejectFile:
    """Collects the rejected rows of one file on disk, so that memory stays flat.

    The result is a CSV: line, page, column, reason, then the row as it was read, so that it can
    be mended and dropped again.
    """

    def __init__(self, directory: Path) -> None:
        self.count = 0
        self._directory = directory
        self._binary: BinaryIO | None = None
        self._text: io.TextIOWrapper | None = None
        self._header: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._text is not None:
            self._text.close()

    def add(self, reject: Reject) -> None:
        """Append one row."""
        if self._text is None:
            self._binary = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115
            self._text = io.TextIOWrapper(self._binary, encoding="utf-8-sig", newline="")
            self._header = list(reject.values)
            csv.writer(self._text).writerow(["line", "page", "column", "reason", *self._header])
        values = [reject.values.get(name, "") for name in self._header]
        csv.writer(self._text).writerow(
            [reject.line, reject.page or "", reject.column, reject.reason, *values]
        )
        self.count += 1

    def store(self, folder: RemoteFolder, path: str) -> str | None:
        """Put `<path>.rejects.csv` in place if there is anything to tell; returns its path."""
        if self._text is None or self._binary is None:
            return None
        self._text.flush()
        size = self._binary.tell()
        self._binary.seek(0)
        target = f"{path}.rejects.csv"
        folder.put(target, self._binary, size=size, overwrite=True)
        self._binary.seek(0, io.SEEK_END)
        return target
