"""Imports from a marketplace again and again, killed one step later each time.

    python kill_import.py DIRECTORY retry|next-run MARKETPLACE_BLOCK_JSON [SLICES_FROM]

Run as a process of its own, since it forks. Prints one JSON line a kill point: which orders the
application has, what was rejected, and where the cursor is.
"""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.append(str(Path(__file__).parents[4]))
from killed import Application, KillSwitch, changes_something, in_child

from blocks.http_api import HttpApi
from flows.orders_import.orders import ORDERS, order_of
from tasks.api import open_api
from tasks.core.formats.records.validation import RecordValidator
from tasks.core.state.database import open_database
from tasks.core.sync.api_import.cursors import Cursors
from tasks.core.sync.api_import.importing import import_changes
from tasks.core.sync.api_import.job import ApiImportJob
from tasks.core.sync.api_import.windows import Windows
from tasks.core.sync.batches.application_records import Order


def run(
    directory: Path,
    source: HttpApi,
    owner: str,
    *,
    at: datetime,
    slices_from: datetime | None,
    kill_at: int = 0,
) -> None:
    switch = KillSwitch(kill_at)
    application = Application(directory / "application.db")
    switch.around(application, "send")
    engine = open_database(f"sqlite:///{directory / 'state.db'}")
    switch.after_statements(engine, changes_something)
    options = {"slice_s": 1, "at_once": 3} if slices_from else {"slice_s": None, "at_once": 1}
    with open_api(source) as client:
        job = ApiImportJob(
            stream="orders",
            owner=owner,
            cursors=Cursors(engine, lease_s=60, clock=lambda: at),
            source=client,
            listing=ORDERS.model_copy(update={"params": {"limit": 2}, **options}),
            sink=application,
            model=Order,
            validator=RecordValidator(Order),
            reshape=order_of,
            start_at=slices_from,
        )
        import_changes(job)


def main() -> None:
    base, after = Path(sys.argv[1]), sys.argv[2]
    source = HttpApi(**json.loads(sys.argv[3]))
    slices_from = datetime.fromisoformat(sys.argv[4]) if len(sys.argv) > 4 else None
    # a window of slices ends where it is opened: soon after it begins
    now = slices_from + timedelta(seconds=4) if slices_from else datetime.now(UTC)
    open_database(f"sqlite:///{base / 'migrated.db'}").dispose()
    for kill_at in range(1, 500, 3 if slices_from else 1):
        directory = base / f"{after}-{kill_at}"
        directory.mkdir(parents=True)
        shutil.copy(base / "migrated.db", directory / "state.db")

        def attempt(owner: str, at: datetime, kill_at: int = 0) -> None:
            run(directory, source, owner, at=at, slices_from=slices_from, kill_at=kill_at)  # noqa: B023

        ended = in_child(lambda: attempt("first", now, kill_at))  # noqa: B023
        owner, at = ("first", now) if after == "retry" else ("next", now + timedelta(hours=1))
        assert in_child(lambda: attempt(owner, at))  # noqa: B023
        engine = open_database(f"sqlite:///{directory / 'state.db'}")
        cursors = Cursors(engine)
        outcome = {
            "kill_at": kill_at,
            "ended": ended,
            "orders": Application(directory / "application.db").taken("order_no"),
            "rejects": [r.id for _, r in Windows(cursors).latest_rejects(limit=10)],
            "cursor": cursors.streams()[0].value,
            "windows": cursors.streams()[0].open_windows,
        }
        engine.dispose()
        print(json.dumps(outcome))
        if ended:
            return


if __name__ == "__main__":
    main()
