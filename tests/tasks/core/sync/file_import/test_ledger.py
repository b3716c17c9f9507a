"""The ledger of picked-up files."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from blocks.errors import LeaseLostError
from tasks.core.connectors.folders.protocol import RemoteFile
from tasks.core.sync.file_import.ledger import FileLease, FileUnavailable, batch_key

AT = datetime(2026, 3, 1, tzinfo=UTC)
STOCK = RemoteFile("incoming/stock.csv", 10, AT, "v1")


def test_two_pollers_never_get_the_same_file(new_ledger):
    """Of two runs that claim one file, one gets it and the other learns that it is held."""
    assert isinstance(new_ledger("a").lease(STOCK, batch_size=5), FileLease)
    unavailable = new_ledger("b").lease(STOCK, batch_size=5)
    assert isinstance(unavailable, FileUnavailable)
    assert not unavailable.finished


def test_many_pollers_at_once_give_one_lease(new_ledger):
    """Of eight runs that claim one file at the same instant, exactly one gets it."""
    start = threading.Barrier(8)
    got = []

    def lease(owner: str) -> None:
        ledger = new_ledger(owner)
        start.wait()
        got.append(ledger.lease(STOCK, batch_size=5))

    threads = [threading.Thread(target=lease, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(one, FileLease) for one in got) == 1
    assert len(got) == 8


def test_an_expired_lease_is_taken_over_and_its_holder_can_no_longer_write(new_ledger, clock):
    """A run whose lease ran out and was taken over gets LeaseLostError for whatever it writes."""
    first, second = new_ledger("a"), new_ledger("b")
    old = first.lease(STOCK, batch_size=5)
    first.record_batch(old, 0, "d0", 5)
    clock.advance(61)
    new = second.lease(STOCK, batch_size=99)
    assert isinstance(new, FileLease)
    assert (new.id, new.batch_size, new.crashes) == (old.id, 5, 1)
    assert second.sent_batches(new) == {0: "d0"}
    for write in (
        lambda: first.record_batch(old, 1, "d1", 5),
        lambda: first.extend(old),
        lambda: first.mark_imported(old, target_path="x", rows_imported=1, rows_rejected=0),
        lambda: first.mark_failing(old, target_path="x", reason="r"),
        lambda: first.settle(old),
        lambda: first.fail(old),
        lambda: first.release(old, reason="r"),
        lambda: first.forget(old),
    ):
        with pytest.raises(LeaseLostError):
            write()
    assert second.sent_batches(new) == {0: "d0"}


def test_working_extends_the_lease(new_ledger, clock):
    """A run that records batches keeps its file for longer than one lease."""
    first, second = new_ledger("a"), new_ledger("b")
    lease = first.lease(STOCK, batch_size=5)
    for ordinal in range(4):
        clock.advance(50)
        first.record_batch(lease, ordinal, "d", 5)
    assert isinstance(second.lease(STOCK, batch_size=5), FileUnavailable)


def test_a_settled_version_is_finished_for_ever_and_a_new_one_is_new(new_ledger, clock):
    """A file that was imported and moved away is never claimed again; new content is."""
    ledger = new_ledger("a")
    lease = ledger.lease(STOCK, batch_size=5)
    lease = ledger.mark_imported(lease, target_path="x", rows_imported=3, rows_rejected=1)
    ledger.settle(lease)
    settled_at = clock.now
    clock.advance(10_000)
    assert ledger.finished([STOCK]) == {STOCK.path}
    unavailable = new_ledger("b").lease(STOCK, batch_size=5)
    assert unavailable == FileUnavailable(finished=True, since_at=settled_at)
    newer = RemoteFile(STOCK.path, 11, AT, "v2")
    assert ledger.finished([newer]) == set()
    again = new_ledger("b").lease(newer, batch_size=5)
    assert isinstance(again, FileLease)
    assert again.id != lease.id


def test_a_retried_run_takes_its_own_files_up_at_once(new_ledger):
    """The same owner reclaims without waiting for its lease, and keeps what it sent."""
    ledger = new_ledger("a")
    lease = ledger.lease(STOCK, batch_size=5)
    ledger.record_batch(lease, 0, "d0", 5)
    again = new_ledger("a").lease(STOCK, batch_size=5)
    assert isinstance(again, FileLease)
    assert again.token > lease.token
    assert ledger.sent_batches(again) == {0: "d0"}


def test_a_mended_file_continues_its_entry_under_the_new_version(new_ledger):
    """With `continues`, the new version keeps the entry's id, so its batch keys stay the same."""
    ledger = new_ledger("a")
    lease = ledger.lease(STOCK, batch_size=5)
    ledger.record_batch(lease, 0, "d0", 5)
    ledger.fail(ledger.mark_failing(lease, target_path="error/stock.csv", reason="line 7"))
    (left,) = new_ledger("a").unfinished()
    assert (left.found_at, left.state) == ("error/stock.csv", "failed")
    mended = RemoteFile(STOCK.path, 12, AT, "v2")
    again = ledger.lease(mended, batch_size=5, continues=left.file.version)
    assert batch_key(again, 0, "d0") == batch_key(lease, 0, "d0")
    assert ledger.sent_batches(again) == {0: "d0"}
    assert isinstance(new_ledger("b").lease(STOCK, batch_size=5), FileLease), (
        "the old version is free"
    )


def test_a_released_file_goes_to_whoever_comes_next(new_ledger):
    """An orderly interruption frees the file at once and counts as no crash."""
    first, second = new_ledger("a"), new_ledger("b")
    lease = first.lease(STOCK, batch_size=5)
    first.record_batch(lease, 0, "d0", 5)
    first.release(lease, reason="the application is down")
    taken = second.lease(STOCK, batch_size=5)
    assert isinstance(taken, FileLease)
    assert taken.crashes == 0
    assert second.sent_batches(taken) == {0: "d0"}
    assert first.unfinished() == []


def test_crashes_are_counted_over_runs(new_ledger, clock):
    """Each time a lease just runs out, one more crash is on the file's account."""
    for expected, owner in enumerate("abcd"):
        assert new_ledger(owner).lease(STOCK, batch_size=5).crashes == expected
        clock.advance(61)


def test_a_forgotten_file_is_as_if_never_seen(new_ledger):
    """A file that vanished or changed while it was read leaves no trace."""
    ledger = new_ledger("a")
    ledger.forget(ledger.lease(STOCK, batch_size=5))
    assert ledger.unfinished() == []
    assert new_ledger("b").lease(STOCK, batch_size=7).batch_size == 7


def test_importers_and_places_are_apart(state_database, new_ledger):
    """Another importer takes the same file of the same place for itself."""
    from tasks.core.sync.file_import.ledger import FileLedger

    other = FileLedger(state_database, importer="orders", place="test://", owner="b")
    assert isinstance(new_ledger("a").lease(STOCK, batch_size=5), FileLease)
    assert isinstance(other.lease(STOCK, batch_size=5), FileLease)


def test_finished_answers_for_thousands_of_files(new_ledger):
    """The question is asked in pieces: 2,000 listed files are no problem for any database."""
    ledger = new_ledger("a")
    lease = ledger.lease(STOCK, batch_size=5)
    ledger.settle(ledger.mark_imported(lease, target_path=None, rows_imported=0, rows_rejected=0))
    files = [RemoteFile(f"incoming/{n}", 1, AT, "v") for n in range(2000)]
    assert ledger.finished([*files, STOCK]) == {STOCK.path}


@pytest.mark.parametrize("name", ["with space.csv", "ünï.csv", "a'b\"c\n.csv", "x" * 250])
def test_any_name_can_be_leased(new_ledger, name):
    """Quotes, newlines, other scripts and long names are names like any other."""
    file = RemoteFile(f"incoming/{name}", 1, AT, "v")
    assert isinstance(new_ledger("a").lease(file, batch_size=5), FileLease)
    assert [u.file.path for u in new_ledger("a").unfinished()] == [file.path]
