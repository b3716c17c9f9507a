"""Reconciling lists: one record that cannot be brought in step does not stop the others."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest

from blocks.errors import UnreachableError, UpstreamRejectedError
from tasks.core.sync.two_way.reconcile import (
    ReconcileReport,
    RecordReport,
    bring_in_step,
    bring_page_in_step,
)
from tasks.core.sync.two_way.syncing import Synced

WHERE = {"system": "CRM", "operation": "write"}
OUTCOMES = {
    "same": Synced(),
    "new": Synced(("own app created",)),
    "refused": UpstreamRejectedError("it answered 422", status=422, **WHERE),
    "away": UnreachableError("no connection", **WHERE),
}


class Scripted:
    """Says of each record what its id says."""

    def __init__(self):
        self.synced = []
        self.follows_deletions = set()

    def find_differing(self, side, snapshots):
        return [record_id for record_id in snapshots if record_id != "in-step"]

    def sync(self, side, record_id, *, follows_deletions):
        self.follows_deletions.add(follows_deletions)
        self.synced.append((side, record_id))
        outcome = OUTCOMES[record_id]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def page(*ids):
    return [SimpleNamespace(id=record_id, snapshot=None) for record_id in ids]


def test_a_page_is_brought_in_step():
    """What differs is synced; what could not be is told, with what was done of the others."""
    two_way = Scripted()
    report = bring_page_in_step(
        two_way, "left", "CRM", page("in-step", "refused", "new", "same"), "cursor-2"
    )
    assert sorted(two_way.synced) == [("left", "new"), ("left", "refused"), ("left", "same")]
    assert report.seen == ["in-step", "refused", "new", "same"]
    assert [(t.record, t.what) for t in report.brought_in_step] == [("CRM new", "own app created")]
    assert [t.record for t in report.refused] == ["CRM refused"]
    assert report.next_position == "cursor-2"
    assert two_way.follows_deletions == {False}


def test_what_may_pass_fails_the_page_after_the_others_were_done():
    """Trying the page again then has only that left to do."""
    two_way = Scripted()
    with pytest.raises(UnreachableError):
        bring_in_step(two_way, [("left", "away"), ("right", "new")], {"left": "CRM", "right": "A"})
    assert sorted(two_way.synced) == [("left", "away"), ("right", "new")]
    assert two_way.follows_deletions == {True}


def test_nothing_to_do():
    """An empty page is no reason to start threads that never end."""
    assert bring_in_step(Scripted(), [], {}).seen == []


def test_results_that_former_versions_have_stored_can_still_be_read():
    """Retry of a run begun before the update reads its pages, pickled under former names."""
    record = RecordReport(record="contact 7", what="created")
    report = ReconcileReport(seen=["7"], brought_in_step=[record])
    former = (
        pickle.dumps(report, protocol=0)
        .replace(b"tasks.core.sync.two_way.reconcile", b"tasks.plain.two_way.walking")
        .replace(b"ReconcileReport", b"WalkReport")
        .replace(b"RecordReport", b"Told")
    )
    assert b"WalkReport" in former
    assert b"Told" in former
    assert pickle.loads(former) == report
