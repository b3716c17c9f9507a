"""Imports a file again and again, killed one step later each time, and tells what came of it.

    python kill_points.py DIRECTORY retry|next-run good|bad

Run as a process of its own, since it forks. Prints one JSON line a kill point: which rows the
application has, and where the file is.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, Field
from sqlalchemy import event

from tasks.plain.file_import.importing import import_file
from tasks.plain.file_import.job import ImportJob
from tasks.plain.file_import.ledger import Ledger
from tasks.plain.file_import.pick_up import PickUp, find_ready_files
from tasks.plain.file_import.put_away import PutAway
from tasks.plain.file_import.sink import Sent
from tasks.plain.file_import.work_list import plan_work
from tasks.plain.records.validation import RecordValidator
from tasks.plain.remote_folders.local import LocalFiles
from tasks.plain.state.database import open_database

GOOD = "sku,quantity\n" + "".join(f"s{n},{n}\n" for n in range(7)) + "bad,minus\n"
BAD = "something else\n1\n"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Item(BaseModel):
    sku: str
    quantity: int = Field(ge=0)


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

    def rows(self) -> list[str]:
        batches = self.db.execute("SELECT rows FROM batches").fetchall()
        return sorted(item["sku"] for (rows,) in batches for item in json.loads(rows))


class KillSwitch:
    """Kills this process at the n-th step; a step is told before and after it happens."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, target: object, name: str) -> None:
        inner: Callable[..., object] = getattr(target, name)

        def call(*args: object, **kwargs: object) -> object:
            self.step()
            result = inner(*args, **kwargs)
            self.step()
            return result

        setattr(target, name, call)


def run(directory: Path, owner: str, *, at: datetime, kill_at: int = 0) -> None:
    switch = KillSwitch(kill_at)
    folder = LocalFiles(directory / "place", system="test://")
    application = Application(directory / "application.db")
    for target, names in ((folder, ("put", "move", "delete")), (application, ("send",))):
        for name in names:
            switch.around(target, name)
    engine = open_database(f"sqlite:///{directory / 'state.db'}")

    @event.listens_for(engine, "connect")
    def _hurry(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")  # processes die here, not machines

    @event.listens_for(engine, "after_cursor_execute")
    def _count(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.lstrip().startswith(("SELECT", "PRAGMA")):
            switch.step()

    ledger = Ledger(
        engine, importer="items", place=folder.system, owner=owner, lease_s=60, clock=lambda: at
    )
    job = ImportJob(
        folder=folder,
        ledger=ledger,
        sink=application,
        model=Item,
        validator=RecordValidator(Item),
        put_away=PutAway(archive_folder="archive", error_folder="error"),
        run_id=owner,
        batch_size=2,
        clock=lambda: at,
    )
    ready = find_ready_files(
        folder, "incoming", PickUp(stable_for_s=0), finished=ledger.finished
    ).ready
    for item in plan_work(folder, ledger.unfinished(), ready):
        import_file(job, item.file, original=item.original)


def in_child(work: Callable[[], None]) -> bool:
    """Run in a forked child; whether it came to its end."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status == 0


def main() -> None:
    base, after, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    open_database(f"sqlite:///{base / 'migrated.db'}").dispose()
    for kill_at in range(1, 500):
        directory = base / f"{after}-{kind}-{kill_at}"
        (directory / "place" / "incoming").mkdir(parents=True)
        (directory / "place" / "incoming" / "f.csv").write_text(GOOD if kind == "good" else BAD)
        shutil.copy(base / "migrated.db", directory / "state.db")
        ended = in_child(lambda: run(directory, "first", at=NOW, kill_at=kill_at))  # noqa: B023
        owner, at = ("first", NOW) if after == "retry" else ("next", NOW + timedelta(hours=1))
        assert in_child(lambda: run(directory, owner, at=at))  # noqa: B023
        files = sorted(
            str(path.relative_to(directory / "place"))
            for path in (directory / "place").rglob("*")
            if path.is_file()
        )
        rows = Application(directory / "application.db").rows()
        print(json.dumps({"kill_at": kill_at, "ended": ended, "rows": rows, "files": files}))
        if ended:
            return


if __name__ == "__main__":
    main()
