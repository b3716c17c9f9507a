"""What all cases write into: a table in SQLite, one commit a page."""

from __future__ import annotations

import json
import resource
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any


class Sink:
    """A table of records by id."""

    def __init__(self, database: Path) -> None:
        self._connection = sqlite3.connect(database, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(
            "CREATE TABLE orders (id TEXT PRIMARY KEY, changed_at TEXT, amount TEXT, buyer TEXT)"
        )

    def write(self, rows: Iterable[tuple[str, str, str, str]]) -> None:
        """One page, committed."""
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?)", rows)
        self._connection.execute("COMMIT")

    def write_page(self, records: Sequence[dict[str, Any]]) -> None:
        """Records as the API has them."""
        self.write((r["id"], r["updated_at"], r["amount"], r["buyer"]["name"]) for r in records)

    def count(self) -> int:
        """How many there are."""
        found: tuple[int] = self._connection.execute("SELECT count(*) FROM orders").fetchone()
        return found[0]


def measure(case: Callable[[Sink], None]) -> None:
    """Run a case on the database of the command line, and print what came of it."""
    sink = Sink(Path(sys.argv[3]))
    began = time.perf_counter()
    case(sink)
    seconds = time.perf_counter() - began
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"records": sink.count(), "seconds": seconds, "peak_mb": peak_mb}))
