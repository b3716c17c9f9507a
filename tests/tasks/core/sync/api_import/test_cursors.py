"""Cursors on both databases: who holds a stream, what moves it, what an operator may do."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from blocks.errors import LeaseLostError, MisconfiguredError, UpstreamBusyError
from tasks.core.sync.api_import.cursors import Cursors, StreamBusy, StreamLease
from tasks.core.sync.api_import.windows import Arrival, PageTaken, TakenRecord, Windows

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CURSOR = "2026-03-01T12:00:00.000000Z"


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self):
        self.now = NOON

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cursors(state_database, clock):
    return Cursors(state_database, lease_s=60, clock=clock)


def test_a_stream_begins_without_a_cursor_and_keeps_what_it_is_moved_to(cursors):
    """The next run finds the cursor where the last one left it."""
    lease = cursors.lease("orders", owner="first")
    assert lease == StreamLease("orders", None, 1)
    cursors.release(cursors.advance(lease, CURSOR))
    assert cursors.lease("orders", owner="second") == StreamLease("orders", CURSOR, 2)


def test_only_one_run_holds_a_stream(cursors, clock):
    """Another one learns who has it and until when; other streams are free."""
    cursors.lease("orders", owner="first")
    assert cursors.lease("orders", owner="second") == StreamBusy(
        "orders", "first", NOON + timedelta(seconds=60)
    )
    assert isinstance(cursors.lease("tickets", owner="second"), StreamLease)


def test_a_retried_run_takes_its_stream_up_at_once(cursors):
    """The same owner does not wait for its own lease."""
    cursors.lease("orders", owner="first")
    assert isinstance(cursors.lease("orders", owner="first"), StreamLease)


def test_a_run_whose_lease_was_taken_over_moves_nothing(cursors, clock):
    """The first run wakes up too late: it can neither move nor extend, and its release is void."""
    late = cursors.lease("orders", owner="first")
    clock.advance(61)
    lease = cursors.lease("orders", owner="second")
    for write in (lambda: cursors.advance(late, "x"), lambda: cursors.extend(late)):
        with pytest.raises(LeaseLostError, match="took the stream over"):
            write()
    cursors.release(late)
    assert isinstance(cursors.lease("orders", owner="third"), StreamBusy)
    assert cursors.advance(lease, CURSOR).value == CURSOR


def test_each_write_extends_the_lease(cursors, clock):
    """A run that works holds its stream for as long as it works."""
    lease = cursors.lease("orders", owner="first")
    for _ in range(5):
        clock.advance(50)
        lease = cursors.advance(lease, CURSOR)
    assert isinstance(cursors.lease("orders", owner="second"), StreamBusy)


def test_of_many_that_ask_at_once_one_gets_the_stream(cursors):
    """Threads with connections of their own ask for a stream that nobody knows yet."""
    barrier = threading.Barrier(8)
    answers = []

    def ask(number):
        barrier.wait()
        answers.append(cursors.lease("orders", owner=str(number)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(answer, StreamLease) for answer in answers) == 1
    assert len(answers) == 8


def test_setting_a_cursor_forgets_what_was_begun_and_taken(cursors):
    """What is behind the new cursor is read again in full, whatever was remembered."""
    windows = Windows(cursors)
    lease = cursors.lease("orders", owner="first")
    window = windows.open(lease, since_at=None)
    page = PageTaken("next", NOON, None, [TakenRecord("1", "digest", NOON)], [], 0)
    windows.store_page(lease, window, page, Arrival())
    cursors.release(cursors.advance(lease, CURSOR))
    assert cursors.set("orders", "2026-02-01T00:00:00Z") == CURSOR
    [stream] = cursors.streams()
    assert (stream.value, stream.open_windows, stream.taken) == ("2026-02-01T00:00:00Z", (), 0)


def test_a_dry_run_changes_nothing(cursors):
    """It says what the cursor is."""
    cursors.release(cursors.advance(cursors.lease("orders", owner="first"), CURSOR))
    assert cursors.set("orders", None, dry_run=True) == CURSOR
    assert cursors.streams()[0].value == CURSOR


def test_a_cursor_is_not_set_under_a_run(cursors, clock):
    """It says which run is at it; when the run's lease has lapsed, it can be set."""
    late = cursors.lease("orders", owner="first")
    with pytest.raises(UpstreamBusyError, match="run first is at it"):
        cursors.set("orders", None)
    clock.advance(61)
    cursors.set("orders", None)
    with pytest.raises(LeaseLostError):
        cursors.advance(late, CURSOR)


def test_a_cursor_of_another_form_is_refused(cursors):
    """An instant cannot become a number, nor lose its zone."""
    cursors.release(cursors.advance(cursors.lease("orders", owner="first"), CURSOR))
    for wrong in ("17", "2026-03-01T12:00:00", "yesterday"):
        with pytest.raises(MisconfiguredError, match="instant"):
            cursors.set("orders", wrong)


def test_an_unknown_stream_is_named_with_those_there_are(cursors):
    """A typing mistake makes no new stream."""
    cursors.lease("orders", owner="first")
    with pytest.raises(MisconfiguredError, match="there are: orders"):
        cursors.set("order", None)
