"""One file into the application and away, with what partners do to it meanwhile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from blocks.errors import UpstreamRejectedError
from tasks.core.connectors.folders.local import LocalFiles
from tasks.core.formats.records.validation import RecordValidator
from tasks.core.state.database import open_database
from tasks.core.sync.batches.application_records import InventoryItem
from tasks.core.sync.batches.sink import Sent
from tasks.core.sync.file_import.after_import import AfterImport
from tasks.core.sync.file_import.importing import import_file, settle_duplicate
from tasks.core.sync.file_import.job import FileImportJob
from tasks.core.sync.file_import.ledger import FileLedger
from tasks.core.sync.file_import.selection import FileSelection, find_ready_files

DONE = "{name}.done"


class Application:
    """Takes batches in memory; while it does, the partner does what the test says."""

    def __init__(
        self, refuses: frozenset[str] = frozenset(), names_at_most: int | None = None
    ) -> None:
        self.skus: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self._refuses = refuses
        self._names_at_most = names_at_most

    def send(self, records: bytes, *, count: int, idempotency_key: str) -> Sent:
        self.meanwhile()
        skus = [record["sku"] for record in json.loads(records)]
        bad = [
            {"index": n, "reason": "unknown"} for n, sku in enumerate(skus) if sku in self._refuses
        ]
        if bad:
            bad = bad[: self._names_at_most]
            raise UpstreamRejectedError(
                "it refuses rows", system="app", operation="POST", status=422, details=tuple(bad)
            )
        self.skus += skus
        return Sent(created=count)


@pytest.fixture
def engine(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{shutil.copy(migrated_sqlite, tmp_path / 'state.db')}")
    yield engine
    engine.dispose()


@pytest.fixture
def new_job(engine: Engine, folder: LocalFiles) -> Callable[..., FileImportJob]:
    """A job of one run, as `owner`."""

    def make(application: Application, owner: str = "run", **fields) -> FileImportJob:
        ledger = FileLedger(engine, importer="inventory", place=folder.system, owner=owner)
        options = {
            "after_import": AfterImport(archive_folder="archive"),
            "done_file": DONE,
            **fields,
        }
        return FileImportJob(
            folder=folder,
            ledger=ledger,
            sink=application,
            model=InventoryItem,
            validator=RecordValidator(InventoryItem),
            run_id=owner,
            **options,
        )

    return make


@pytest.fixture
def place(tmp_path: Path, folder: LocalFiles) -> Path:
    return tmp_path / "place"


def drop(place: Path, *skus: str) -> None:
    """The partner writes the file, then its done file."""
    rows = "".join(f"{sku},Item,1\n" for sku in skus)
    (place / "incoming" / "stock.csv").write_text(f"sku,name,quantity\n{rows}")
    (place / "incoming" / "stock.csv.done").touch()


def stock(job: FileImportJob):
    file = job.folder.stat("incoming/stock.csv")
    assert file is not None
    return file


def files(place: Path) -> list[str]:
    return sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file())


@pytest.mark.parametrize("on_success", ["move", "delete", "keep"])
def test_a_file_that_is_dropped_during_the_import_stays(new_job, place, on_success):
    """The next file of the same name, and its done file, are left for the next run, unread."""
    application = Application()
    after_import = AfterImport(archive_folder="archive", on_success=on_success)
    job = new_job(application, after_import=after_import)
    drop(place, "old")
    application.meanwhile = lambda: drop(place, "new", "newer")
    outcome = import_file(job, stock(job))
    assert (outcome.result, application.skus) == ("imported", ["old"])
    assert files(place) == ["incoming/stock.csv", "incoming/stock.csv.done"]
    assert "newer" in (place / "incoming" / "stock.csv").read_text()
    assert outcome.now_at == ("incoming/stock.csv" if on_success == "keep" else None)
    application.meanwhile = lambda: None
    import_file(new_job(application, "next", after_import=after_import), stock(job))
    assert application.skus == ["old", "new", "newer"]
    assert "incoming/stock.csv.done" not in files(place)


def test_a_file_that_replaced_a_bad_one_stays(new_job, place):
    """What is dropped while a bad file is on its way to the error folder is not moved there."""
    application = Application(frozenset({"old"}))
    job = new_job(application)
    drop(place, "old")
    application.meanwhile = lambda: drop(place, "new", "newer")
    assert import_file(job, stock(job)).result == "failed"
    assert "incoming/stock.csv" in files(place)
    assert "incoming/stock.csv.done" in files(place)


@pytest.mark.parametrize("on_success", ["move", "delete"])
def test_a_duplicate_goes_with_its_done_file(new_job, place, on_success):
    """Else it would vouch for the next file of that name before that is complete."""
    application = Application()
    keep = AfterImport(on_success="keep")
    drop(place, "1")
    job = new_job(application, after_import=keep)
    import_file(job, stock(job))
    (place / "incoming" / "stock.csv.done").touch()
    job = new_job(
        application,
        "next",
        after_import=AfterImport(archive_folder="archive", on_success=on_success),
    )
    outcome = settle_duplicate(job, stock(job))
    assert outcome.result == "duplicate"
    assert files(place) == (["archive/stock.csv"] if on_success == "move" else [])


@pytest.mark.parametrize("on_success", ["move", "delete"])
def test_a_duplicate_that_was_replaced_meanwhile_stays(new_job, place, on_success):
    """Between listing and putting away the partner may drop the next file of that name."""
    drop(place, "1")
    job = new_job(Application(), after_import=AfterImport(on_success=on_success))
    listed = stock(job)
    drop(place, "2", "3")
    outcome = settle_duplicate(job, listed)
    assert (outcome.result, outcome.now_at) == ("left", "incoming/stock.csv")
    assert files(place) == ["incoming/stock.csv", "incoming/stock.csv.done"]


def test_a_duplicate_that_cannot_be_moved_away_is_an_outcome(new_job, place):
    """It says why, and does not stop the others."""
    after_import = AfterImport(archive_folder="archive", on_collision="fail")
    drop(place, "1")
    (place / "archive").mkdir()
    (place / "archive" / "stock.csv").write_text("another")
    job = new_job(Application(), after_import=after_import)
    outcome = settle_duplicate(job, stock(job))
    assert outcome.result == "interrupted"
    assert "a file of that name is there already" in (outcome.reason or "")


def test_a_duplicate_is_imported_again_when_that_is_asked(new_job, place):
    """Once a run, under keys of its own, so that the application takes the rows again."""
    application = Application()
    after_import = AfterImport(on_success="keep", on_duplicate="import")
    drop(place, "1")
    job = new_job(application, "first", after_import=after_import)
    import_file(job, stock(job))
    for owner in ("second", "third"):
        job = new_job(application, owner, after_import=after_import)
        assert import_file(job, stock(job), again=True).result == "imported"
        assert import_file(job, stock(job), again=True).result == "duplicate", "a retry of the run"
    assert application.skus == ["1", "1", "1"]


def test_all_or_nothing_takes_no_more_when_the_application_refuses_a_row(new_job, place):
    """The rest of the batch does not go in, the file goes to the error folder and says why."""
    application = Application(frozenset({"3"}))
    drop(place, "1", "2", "3", "4", "5")
    job = new_job(application, all_or_nothing=True, batch_size=2)
    outcome = import_file(job, stock(job))
    assert (outcome.result, outcome.counts.rejected) == ("failed", 1)
    assert application.skus == ["1", "2"]
    assert outcome.reason is not None
    assert "the application refuses 1 rows, the first in line 4" in outcome.reason
    assert "the 2 rows of the batches before are in" in outcome.reason
    assert "error/stock.csv.rejects.csv" in files(place)


def test_an_application_that_names_one_bad_row_at_a_time_takes_the_good_ones(new_job, place):
    """Each refusal takes out what it names; the file is imported, with its rejects beside it."""
    application = Application(frozenset({"2", "4"}), names_at_most=1)
    drop(place, "1", "2", "3", "4", "5")
    job = new_job(application)
    outcome = import_file(job, stock(job))
    assert (outcome.result, outcome.counts.rejected) == ("imported", 2)
    assert application.skus == ["1", "3", "5"]


@pytest.mark.parametrize(
    "archive", ["incoming/{date}", "incoming/done-{year}-{month}/{day}", "incoming/{run_id}"]
)
def test_an_archive_with_a_date_in_the_own_folder_is_not_imported(new_job, place, archive):
    """New files are found, archived ones never again, in sub-folders too."""
    application = Application()
    after_import = AfterImport(archive_folder=archive, error_folder="incoming/error")
    for run in range(3):
        drop(place, f"direct {run}")
        (place / "incoming" / "sub").mkdir(exist_ok=True)
        (place / "incoming" / "stock.csv").rename(place / "incoming" / "sub" / f"{run}.csv")
        drop(place, f"below {run}")
        job = new_job(application, str(uuid4()), after_import=after_import)
        listing = find_ready_files(
            job.folder,
            "incoming",
            FileSelection(stable_for_s=0, recursive=True, include=["*.csv"]),
            finished=job.ledger.finished,
            ignore_folders=(after_import.archive_folder, after_import.error_folder),
        )
        assert len(listing.ready) == 2
        for file in listing.ready:
            import_file(job, file)
    assert len(application.skus) == len(set(application.skus)) == 6


def test_a_cancelled_run_stops_behind_its_batch(new_job, place, cancelling):
    """It gives the file back; the next run goes on with the next batch."""
    drop(place, "A-1", "A-2", "A-3")
    application = Application()

    def work(cancel):
        application.meanwhile = cancel
        job = new_job(application, batch_size=1)
        import_file(job, stock(job))

    cancelling(work)
    assert application.skus == ["A-1"]
    application.meanwhile = lambda: None
    job = new_job(application, owner="next", batch_size=1)
    assert import_file(job, stock(job)).result == "imported"
    assert application.skus == ["A-1", "A-2", "A-3"]
