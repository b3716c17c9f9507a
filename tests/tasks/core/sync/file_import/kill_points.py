"""Imports a file again and again, killed one step later each time, and tells what came of it.

    python kill_points.py DIRECTORY retry|next-run good|bad

Run as a process of its own, since it forks. Prints one JSON line a kill point: which rows the
application has, and where the file is.
"""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, Field

sys.path.append(str(Path(__file__).parents[4]))
from killed import Application, KillSwitch, changes_something, in_child

from tasks.core.connectors.folders.local import LocalFiles
from tasks.core.formats.records.validation import RecordValidator
from tasks.core.state.database import open_database
from tasks.core.sync.file_import.after_import import AfterImport
from tasks.core.sync.file_import.importing import import_file
from tasks.core.sync.file_import.job import FileImportJob
from tasks.core.sync.file_import.ledger import FileLedger
from tasks.core.sync.file_import.selection import FileSelection, find_ready_files, plan_work

GOOD = "sku,quantity\n" + "".join(f"s{n},{n}\n" for n in range(7)) + "bad,minus\n"
BAD = "something else\n1\n"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Item(BaseModel):
    sku: str
    quantity: int = Field(ge=0)


def run(directory: Path, owner: str, *, at: datetime, kill_at: int = 0) -> None:
    switch = KillSwitch(kill_at)
    folder = LocalFiles(directory / "place", system="test://")
    application = Application(directory / "application.db")
    for target, names in ((folder, ("put", "move", "delete")), (application, ("send",))):
        for name in names:
            switch.around(target, name)
    engine = open_database(f"sqlite:///{directory / 'state.db'}")
    switch.after_statements(engine, changes_something)
    ledger = FileLedger(
        engine, importer="items", place=folder.system, owner=owner, lease_s=60, clock=lambda: at
    )
    job = FileImportJob(
        folder=folder,
        ledger=ledger,
        sink=application,
        model=Item,
        validator=RecordValidator(Item),
        after_import=AfterImport(archive_folder="archive", error_folder="error"),
        run_id=owner,
        batch_size=2,
        clock=lambda: at,
    )
    ready = find_ready_files(
        folder, "incoming", FileSelection(stable_for_s=0), finished=ledger.finished
    ).ready
    for item in plan_work(folder, ledger.unfinished(), ready):
        import_file(job, item.file, original=item.original)


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
        rows = Application(directory / "application.db").taken("sku")
        print(json.dumps({"kill_at": kill_at, "ended": ended, "rows": rows, "files": files}))
        if ended:
            return


if __name__ == "__main__":
    main()
