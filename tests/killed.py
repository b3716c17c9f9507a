"""What the programs share that tests run to be killed at any step.

Such a program is a process of its own, since it forks, and finds this module by its own folder.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path

from sqlalchemy import Engine, event

from tasks.core.sync.batches.sink import Sent


class KillSwitch:
    """Kills this process at the n-th step; 0 for never."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self._steps = count(1)

    def step(self) -> None:
        if next(self._steps) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, target: object, name: str) -> None:
        """Before a method of an object or a class is a step, and after it another."""
        inner: Callable[..., object] = getattr(target, name)

        def call(*args: object, **kwargs: object) -> object:
            self.step()
            result = inner(*args, **kwargs)
            self.step()
            return result

        setattr(target, name, call)

    def after_statements(self, engine: Engine, is_step: Callable[[str], bool]) -> None:
        """After each such statement is a step; the disk is not waited for."""

        @event.listens_for(engine, "connect")
        def _hurry(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute("PRAGMA synchronous=OFF")  # processes die here, not machines

        @event.listens_for(engine, "after_cursor_execute")
        def _count(_c: object, _cursor: object, statement: str, *_: object) -> None:
            if is_step(statement):
                self.step()


def changes_something(statement: str) -> bool:
    """Whether it is no query."""
    return not statement.lstrip().startswith(("SELECT", "PRAGMA"))


def in_child(work: Callable[[], object]) -> bool:
    """Run in a forked child; whether it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - a fork must not go on with the parent's work
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status == 0


class Application:
    """Takes a batch once a key, durably; each row it takes is one more row."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("CREATE TABLE IF NOT EXISTS batches (key TEXT PRIMARY KEY, rows TEXT)")

    def send(self, records: bytes, *, count: int, idempotency_key: str) -> Sent:
        assert len(json.loads(records)) == count
        self.db.execute(
            "INSERT OR IGNORE INTO batches VALUES (?, ?)", (idempotency_key, records.decode())
        )
        return Sent(created=count)

    def taken(self, field: str) -> list[str]:
        """One field of all rows, sorted."""
        batches = self.db.execute("SELECT rows FROM batches").fetchall()
        return sorted(row[field] for (rows,) in batches for row in json.loads(rows))
