"""One sentence says what an import did, whatever its source."""

from __future__ import annotations

import pytest

from tasks.core.sync.api_import.job import ApiImportResult
from tasks.core.sync.batches.result import Counts, ImportResult
from tasks.core.sync.file_import.job import FileImportResult, FilesResult


def of(count, reasons=(), **fields):
    result = ImportResult(**fields)
    result.add_units(count, list(reasons))
    return result


MANY = [f"m{n}: no" for n in range(7)]
FILES = FilesResult.of(
    [
        FileImportResult(path="a", result="imported", counts=Counts(records=1, rejected=2)),
        FileImportResult(path="b", result="failed", reason="torn", counts=Counts(records=9)),
        FileImportResult(path="c", result="left"),
    ]
)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (of(1, unit="row", result="done"), "1 row imported"),
        (of(3, ["x: y"], unit="row", result="done"), "2 rows imported, 1 bad: x: y"),
        (of(1200, unit="row"), "1,200 rows imported; that is the limit for one run"),
        (
            of(8, MANY, unit="message", bad_word="dead-lettered", result="done"),
            (
                "1 message imported, 7 dead-lettered: "
                "m0: no; m1: no; m2: no; m3: no; m4: no; and 2 more"
            ),
        ),
        (of(0, result="busy", reason="run 1 is at it"), "nothing to do: run 1 is at it"),
        (of(0, result="failed", reason="503"), "503"),
        (FILES, "1 of 3 files imported, 1 row, 2 rows rejected; b: torn"),
        (FilesResult.of([]), "no files"),
        (
            ApiImportResult(
                stream="s", result="done", pages=1, counts=Counts(records=2), is_resumed=True
            ),
            "2 records in 1 page; an earlier attempt had begun it",
        ),
        (ApiImportResult(stream="s", result="done"), "nothing new"),
    ],
)
def test_the_summary_says_what_went_in_what_did_not_and_what_is_left(result, said):
    """In this order, with the first reasons."""
    assert result.summary() == said


def test_only_what_an_operator_has_to_mend_is_not_good():
    """A bad unit or a failure is; another run at work, or a rest for the next one, is not."""
    assert of(1, unit="row").is_good
    assert of(0, result="busy").is_good
    assert not of(1, ["bad"], result="done").is_good
    assert not of(0, result="failed").is_good
    assert not FILES.is_good
