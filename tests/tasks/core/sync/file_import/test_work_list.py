"""What a retried run does first."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from tasks.core.connectors.folders.protocol import RemoteFile
from tasks.core.sync.file_import.ledger import Unfinished
from tasks.core.sync.file_import.selection import WorkItem, plan_work

AT = datetime(2026, 3, 1, tzinfo=UTC)
ORIGINAL = RemoteFile("incoming/a.csv", 1, AT, "v1")


def put(folder, path: str) -> RemoteFile:
    return folder.put(path, io.BytesIO(b"xy"), size=2)


def test_a_first_attempt_takes_what_is_ready(folder):
    """Nothing unfinished: the listing is the work."""
    assert plan_work(folder, [], [ORIGINAL]) == [WorkItem(ORIGINAL)]


def test_a_failed_file_is_taken_from_the_error_folder(folder):
    """The operator mended it where it lay."""
    mended = put(folder, "error/a.csv")
    failed = Unfinished(ORIGINAL, "error/a.csv", "failed")
    new = RemoteFile("incoming/b.csv", 1, AT, "v1")
    assert plan_work(folder, [failed], [new]) == [WorkItem(mended, ORIGINAL), WorkItem(new)]
    assert WorkItem(mended, ORIGINAL).name == "a.csv"


def test_a_mended_file_dropped_again_wins_over_the_error_folder(folder):
    """The operator put the mended file back to where it was first found."""
    put(folder, "error/a.csv")
    dropped = RemoteFile("incoming/a.csv", 3, AT, "v2")
    failed = Unfinished(ORIGINAL, "error/a.csv", "failed")
    assert plan_work(folder, [failed], [dropped]) == [WorkItem(dropped, ORIGINAL)]


def test_a_failed_file_that_was_cleared_away_is_let_go(folder):
    """The operator gave it up: nothing to do."""
    assert plan_work(folder, [Unfinished(ORIGINAL, "error/a.csv", "failed")], []) == []


def test_an_interrupted_file_is_taken_even_if_the_listing_leaves_it(folder):
    """It may be too young for the listing by now, after a mend in place."""
    now = put(folder, "incoming/a.csv")
    interrupted = Unfinished(ORIGINAL, "incoming/a.csv", "released")
    assert plan_work(folder, [interrupted], []) == [WorkItem(now, ORIGINAL)]


def test_an_imported_file_only_has_its_move_finished(folder):
    """A new file of the same name that arrived meanwhile is another file."""
    imported = Unfinished(ORIGINAL, "incoming/a.csv", "imported")
    newer = RemoteFile("incoming/a.csv", 3, AT, "v2")
    assert plan_work(folder, [imported], [ORIGINAL]) == [WorkItem(ORIGINAL, ORIGINAL)]
    assert plan_work(folder, [imported], [newer]) == [
        WorkItem(ORIGINAL, ORIGINAL),
        WorkItem(newer),
    ]
