"""The scheduled file import as a whole: a folder, a Prefect server and the application."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blocks.http_api import ApiKeyAuth, HttpApi
from blocks.local_folder import LocalFolder
from flows.file_import.flow import file_import

SOURCE = {"source": "local-folder/partner", "record_type": "inventory", "batch_size": 2}
QUICK = {"selection": {"stable_for_s": 0}, "after_import": {"archive_folder": "archive"}}


@pytest.fixture
def place(tmp_path: Path, runs, own_app, monkeypatch) -> Path:
    """A partner's folder and the application, both known to Prefect as blocks."""
    monkeypatch.setenv("INTEGRATIONS_DATABASE_URL", f"sqlite:///{tmp_path / 'state.db'}")
    root = tmp_path / "place"
    (root / "incoming").mkdir(parents=True)
    LocalFolder(path=str(root)).save("partner", overwrite=True)
    HttpApi(
        base_url=f"{own_app.base_url}/api/v1",
        auth=ApiKeyAuth(key=own_app.api_key),
        max_attempts=2,
        first_wait_s=0.01,
    ).save("own-app", overwrite=True)
    return root


def stock(*rows: str) -> str:
    return "\n".join(("sku,name,quantity", *rows)) + "\n"


def sent(own_app) -> int:
    return own_app.requests()["counts"].get("POST /api/v1/inventory/batch", 0)


def test_files_are_imported_and_told_in_the_ui(place, runs, own_app):
    """Good rows reach the application, bad ones are rejected with their line, files move away."""
    (place / "incoming" / "a.csv").write_text(stock("1,One,1", "2,Two,minus", "003,Three,3"))
    (place / "incoming" / "b.jsonl").write_text('{"sku":"4","name":"Four","quantity":4}\n')
    state = runs.start(file_import, **SOURCE, **QUICK)
    assert state.is_completed()
    assert state.message == "2 of 2 files imported, 3 rows, 1 row rejected"
    assert sorted(r["sku"] for r in own_app.records("inventory")) == ["003", "1", "4"]
    assert runs.tasks() == {
        "list ready files in incoming": "Completed",
        "import a.csv": "Completed",
        "import b.jsonl": "Completed",
    }
    assert sorted(p.name for p in (place / "archive").iterdir()) == [
        "a.csv",
        "a.csv.rejects.csv",
        "b.jsonl",
    ]
    files, rejects = [json.loads(a.data) for a in runs.artifacts()]
    assert [(f["File"], f["Result"], f["Rows imported"]) for f in files] == [
        ("incoming/a.csv", "imported", 2),
        ("incoming/b.jsonl", "imported", 1),
    ]
    assert [(r["File"], r["Line"], r["Column"]) for r in rejects] == [
        ("incoming/a.csv", 3, "quantity")
    ]
    assert "minus" not in json.dumps(rejects)


def test_what_a_file_writes_for_no_value_is_none(place, runs, own_app):
    """Declared empty texts stand for a missing value in optional columns."""
    (place / "incoming" / "a.csv").write_text("sku,name,quantity,unit_price\n1,One,1,NA\n")
    state = runs.start(file_import, **SOURCE, **QUICK, empty_texts=["", "NA"])
    assert state.message == "1 of 1 files imported, 1 row"
    assert own_app.records("inventory")[0]["unit_price"] is None


def test_no_files_is_a_success(place, runs):
    """An empty folder makes a completed run that says so."""
    state = runs.start(file_import, **SOURCE, **QUICK)
    assert (state.is_completed(), state.message) == (True, "no files")


def test_a_bad_file_fails_the_run_and_a_retry_resumes_when_it_is_mended(place, runs, own_app):
    """The others go on, the run names the bad file, and Retry sends only what was not sent."""
    count = 60_000  # enough for the reader to meet the broken byte after some batches were sent
    good = "".join(f"{number},Item,1\n" for number in range(count))
    bad = place / "incoming" / "a-bad.csv"
    bad.write_bytes(f"sku,name,quantity\n{good}".encode() + b"last,F\xff\xfeur,4\n")
    (place / "incoming" / "b-good.csv").write_text(stock("nine,Nine,9"))
    state = runs.start(file_import, **SOURCE | {"batch_size": 5000}, **QUICK)
    assert state.is_failed()
    assert "1 of 2 files imported" in state.message
    assert "incoming/a-bad.csv: " in state.message
    assert runs.tasks()["import a-bad.csv"] == "Failed"
    assert runs.tasks()["import b-good.csv"] == "Completed"
    note = json.loads((place / "error" / "a-bad.csv.err.json").read_text())
    assert "encoding" in note["what"]
    assert "press Retry" in note["how_to_mend"]

    sent_before = sent(own_app)
    assert sent_before > 2
    (place / "error" / "a-bad.csv").write_text(f"sku,name,quantity\n{good}last,Four,4\n")
    state = runs.retry(file_import)
    assert state.is_completed(), state.message
    assert len(own_app.records("inventory")) == count + 2
    whole = count // 5000 + 1
    assert sent(own_app) - sent_before == whole - (sent_before - 1), "only batches not sent before"
    assert not list((place / "error").iterdir())
    assert (place / "archive" / "a-bad.csv").exists()


def test_an_application_that_fails_leaves_the_file_for_the_next_run(place, runs, own_app):
    """The run fails and says so; the next goes on behind the last batch that went through."""
    (place / "incoming" / "a.csv").write_text(stock("1,One,1", "2,Two,2", "3,Three,3"))
    (place / "incoming" / "b.csv").write_text(stock("9,Nine,9"))
    runs.start(file_import, **SOURCE, **QUICK | {"selection": {"include": ["b.csv"]}})
    own_app.behave("error", status=503)
    state = runs.start(file_import, **SOURCE, **QUICK, file_retries=0)
    assert state.is_failed()
    assert "503" in state.message
    assert (place / "incoming" / "a.csv").exists()
    own_app.behave("ok")
    state = runs.start(file_import, **SOURCE, **QUICK)
    assert state.is_completed()
    assert sorted(r["sku"] for r in own_app.records("inventory")) == ["1", "2", "3", "9"]


def test_a_short_failure_of_the_application_is_retried_within_the_run(place, runs, own_app):
    """Two failing answers cost two more requests and nothing else."""
    (place / "incoming" / "a.csv").write_text(stock("1,One,1"))
    own_app.behave("error", status=500, remaining=3)
    state = runs.start(file_import, **SOURCE, **QUICK, file_retry_delay_s=0)
    assert state.is_completed()
    assert sent(own_app) == 4


def test_all_or_nothing_sends_nothing_of_a_file_with_a_bad_row(place, runs, own_app):
    """One bad row fails the whole file; the rejects lie beside it."""
    (place / "incoming" / "a.csv").write_text(stock("1,One,1", "2,Two,x", "3,Three,3"))
    state = runs.start(file_import, **SOURCE, **QUICK, all_or_nothing=True)
    assert state.is_failed()
    assert "1 rows are bad, the first in line 3, column 'quantity'" in state.message
    assert sent(own_app) == 0
    assert sorted(p.name for p in (place / "error").iterdir()) == [
        "a.csv",
        "a.csv.err.json",
        "a.csv.rejects.csv",
    ]


def test_rows_that_only_the_application_refuses_are_rejected_alone(place, runs, own_app):
    """The rest of their batch goes in; the reject names line and reason."""
    (place / "incoming" / "a.csv").write_text(
        f"sku,name,quantity,warehouse\n1,One,1,A\n2,Two,2,{'far away ' * 2000}\n"
    )
    state = runs.start(file_import, **SOURCE, **QUICK)
    assert [r["sku"] for r in own_app.records("inventory")] == ["1"]
    assert "1 row rejected" in state.message


def test_a_file_imported_before_is_quarantined_unread(place, runs, own_app):
    """The very file put back from the archive is not sent again."""
    path = place / "incoming" / "a.csv"
    path.write_text(stock("1,One,1"))
    runs.start(file_import, **SOURCE, **QUICK)
    (place / "archive" / "a.csv").rename(path)
    before = sent(own_app)
    runs.start(file_import, **SOURCE, **QUICK)
    assert sent(own_app) == before
    assert not path.exists()


def test_a_duplicate_in_the_way_of_another_stops_no_other_file(place, runs, own_app):
    """It cannot be put away: the run fails and names it, and imports the new files."""
    path = place / "incoming" / "a.csv"
    path.write_text(stock("1,One,1"))
    runs.start(file_import, **SOURCE, **QUICK | {"after_import": {"on_success": "keep"}})
    (place / "archive").mkdir()
    (place / "archive" / "a.csv").write_text("another")
    (place / "incoming" / "b.csv").write_text(stock("2,Two,2"))
    after_import = {"archive_folder": "archive", "on_collision": "fail"}
    state = runs.start(file_import, **SOURCE, **QUICK | {"after_import": after_import})
    assert state.is_failed()
    assert "1 of 2 files imported, 1 row; incoming/a.csv: imported before, and" in state.message
    assert sorted(r["sku"] for r in own_app.records("inventory")) == ["1", "2"]


def test_a_duplicate_is_imported_again_when_that_is_asked(place, runs, own_app):
    """Every run sends the file that is kept, and says so."""
    (place / "incoming" / "a.csv").write_text(stock("1,One,1"))
    again = {"after_import": {"on_success": "keep", "on_duplicate": "import"}}
    for count in (1, 2):
        state = runs.start(file_import, **SOURCE, **QUICK | again)
        assert state.message == "1 of 1 files imported, 1 row"
        assert sent(own_app) == count


def test_a_missing_block_says_what_to_do(place, runs):
    """The run fails with the name of the block and how to make it."""
    state = runs.start(file_import, **SOURCE | {"source": "local-folder/nobody"})
    assert state.is_failed()
    assert "there is no such block; make it in the Prefect UI" in state.message
