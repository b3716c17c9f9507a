"""Where files go after the import, and what is left beside bad ones."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blocks.errors import PermanentError
from tasks.core.formats.records.record import Reject
from tasks.core.sync.batches.rejects_file import RejectFile
from tasks.core.sync.file_import.after_import import (
    AfterImport,
    archive_path,
    error_path,
    free_path,
    write_error_note,
)

AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def content(folder, path: str) -> bytes:
    with folder.open(folder.stat(path)) as stream:
        return stream.read()


def put(folder, path: str, text: bytes = b"x") -> None:
    folder.put(path, io.BytesIO(text), size=len(text))


def test_templates_know_date_and_run():
    """Archive and error folders are named by date and run, and keep the file's name."""
    options = AfterImport(archive_folder="done/{year}/{month}-{day}", error_folder="bad/{run_id}/")
    assert archive_path(options, "in/a.csv", at=AT, run_id="r1") == "done/2026/03-01/a.csv"
    assert error_path(options, "in/a.csv", at=AT, run_id="r1") == "bad/r1/a.csv"


@pytest.mark.parametrize("template", ["x/{nome}", "x/{date", "x/{0}", "x/{date.year.real.x}"])
def test_an_unknown_placeholder_is_refused_in_the_form(template):
    """A wrong template is told when the run is made, not when the first file is moved."""
    with pytest.raises(ValueError, match="unknown placeholder"):
        AfterImport(archive_folder=template)


def test_a_taken_name_is_numbered_kept_or_refused(folder):
    """The collision policy decides: a number before the extension, the same name, or an error."""
    assert free_path(folder, "done/a.csv.gz", "number") == "done/a.csv.gz"
    put(folder, "done/a.csv.gz")
    assert free_path(folder, "done/a.csv.gz", "number") == "done/a-2.csv.gz"
    put(folder, "done/a-2.csv.gz")
    assert free_path(folder, "done/a.csv.gz", "number") == "done/a-3.csv.gz"
    assert free_path(folder, "done/a.csv.gz", "overwrite") == "done/a.csv.gz"
    with pytest.raises(PermanentError, match="a file of that name is there already; clear it away"):
        free_path(folder, "done/a.csv.gz", "fail")


def test_the_error_note_is_json_beside_the_file(folder):
    """Whoever finds the file in the error folder finds the reason beside it."""
    write_error_note(folder, "error/a.csv", {"what": "line 3: größer", "line": 3})
    assert json.loads(content(folder, "error/a.csv.err.json")) == {
        "what": "line 3: größer",
        "line": 3,
    }


def test_rejected_rows_can_be_read_back_and_mended(folder, tmp_path: Path):
    """The reject file holds where and why, then the row exactly as it was."""
    row = {"sku": "007", "name": 'quote " and\nnewline', "quantity": "minus two"}
    with RejectFile(tmp_path) as rejects:
        rejects.add(Reject(4, "quantity", "not a number", row))
        rejects.add(Reject(9, "", "too few cells", {"sku": "8"}, page=2))
        stored = rejects.store(folder, "archive/a.csv")
        rejects.add(Reject(10, "", "later", {}))
    assert stored == "archive/a.csv.rejects.csv"
    text = content(folder, stored).decode("utf-8-sig")
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["line", "page", "column", "reason", "sku", "name", "quantity"],
        ["4", "", "quantity", "not a number", "007", 'quote " and\nnewline', "minus two"],
        ["9", "2", "", "too few cells", "8", "", ""],
    ]


def test_no_rejects_make_no_file(folder, tmp_path: Path):
    """A clean import leaves nothing beside the file."""
    with RejectFile(tmp_path) as rejects:
        assert rejects.store(folder, "archive/a.csv") is None
    assert folder.stat("archive/a.csv.rejects.csv") is None
