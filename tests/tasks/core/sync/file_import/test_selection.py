"""Which files are ready to be imported."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.errors import MisconfiguredError
from tasks.core.sync.file_import.selection import FileSelection, done_file_of, find_ready_files

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def incoming(folder, tmp_path: Path) -> Path:
    return tmp_path / "place" / "incoming"


def drop(incoming: Path, name: str, content: str = "x", *, age_s: float = 60) -> None:
    path = incoming / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    at = (NOW - timedelta(seconds=age_s)).timestamp()
    os.utime(path, (at, at))


def find(
    folder, options: FileSelection | None = None, *, finished=(), between=lambda: None, ignore=()
):
    return find_ready_files(
        folder,
        "incoming",
        options or FileSelection(),
        finished=lambda files: {f.path for f in files if f.name in finished},
        ignore_folders=ignore,
        sleep=lambda _s: between(),
        clock=lambda: NOW,
    )


def names(files) -> list[str]:
    return [file.name for file in files]


def test_temporary_names_are_left_by_default(folder, incoming):
    """What clients call an unfinished upload is not data."""
    for name in ("a.csv", ".b.csv", "c.csv.part", "d.tmp", "~e.xlsx", "f.CSV.FilePart", "g.csv~"):
        drop(incoming, name)
    assert names(find(folder).ready) == ["a.csv"]


def test_include_and_exclude_are_patterns_that_ignore_case(folder, incoming):
    """A file is taken if a pattern includes it and none excludes it."""
    for name in ("a.CSV", "b.csv", "c.xml", "b-old.csv"):
        drop(incoming, name)
    options = FileSelection(include=["*.csv"], exclude=["*-old*"])
    assert names(find(folder, options).ready) == ["a.CSV", "b.csv"]


def test_a_file_that_grows_between_two_listings_waits(folder, incoming):
    """A file still being written is left for the next run, the finished one is taken."""
    drop(incoming, "done.csv")
    drop(incoming, "growing.csv")
    listing = find(folder, between=lambda: drop(incoming, "growing.csv", "xx"))
    assert names(listing.ready) == ["done.csv"]
    assert [(w.file.name, w.reason) for w in listing.waiting] == [
        ("growing.csv", "it is still being written")
    ]


def test_a_file_that_vanishes_between_two_listings_waits(folder, incoming):
    """Somebody else took it: no error."""
    drop(incoming, "a.csv")
    listing = find(folder, between=(incoming / "a.csv").unlink)
    assert names(listing.ready) == []
    assert listing.waiting[0].reason == "it vanished between two listings"


def test_no_second_listing_when_there_is_nothing(folder, incoming):
    """An empty folder is not looked at twice."""
    assert find(folder, between=lambda: pytest.fail("waited")).ready == []


def test_young_files_wait(folder, incoming):
    """With a minimum age, a file changed a moment ago is left for the next run."""
    drop(incoming, "old.csv", age_s=100)
    drop(incoming, "young.csv", age_s=5)
    listing = find(folder, FileSelection(min_age_s=30))
    assert names(listing.ready) == ["old.csv"]
    assert listing.waiting[0].reason == "it is younger than 30 s"


def test_a_server_clock_ahead_of_ours_makes_no_old_file_young(folder, incoming):
    """Ages are taken by the newest time the server shows, if that is ahead of our clock."""
    drop(incoming, "old.csv", age_s=-3600)
    drop(incoming, "young.csv", age_s=-3695)
    listing = find(folder, FileSelection(min_age_s=30))
    assert names(listing.ready) == ["old.csv"]


def test_a_file_without_its_done_file_waits(folder, incoming):
    """With a done file declared, only complete pairs are taken, and done files are never data."""
    for name in ("a.csv", "a.csv.done", "b.csv"):
        drop(incoming, name)
    listing = find(folder, FileSelection(done_file="{name}.done"))
    assert names(listing.ready) == ["a.csv"]
    assert [w.file.name for w in listing.waiting] == ["b.csv"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("{name}.done", "in/a.b.csv.done"), ("{stem}.ok", "in/a.b.ok"), ("ready", "in/ready")],
)
def test_done_file_names(pattern, expected):
    """The done file lies beside its file, named after the whole name, the stem, or alone."""
    assert done_file_of("in/a.b.csv", pattern) == expected


def test_the_limit_cuts_after_sorting_and_skips_what_is_finished(folder, incoming):
    """Of five files, one finished, the two newest of the others are taken."""
    for number, name in enumerate(("e.csv", "d.csv", "c.csv", "b.csv", "a.csv")):
        drop(incoming, name, age_s=number * 10)
    options = FileSelection(sort_by="modified_at", descending=True, max_files=2)
    listing = find(folder, options, finished={"e.csv"})
    assert names(listing.ready) == ["d.csv", "c.csv"]
    assert names(listing.duplicates) == ["e.csv"]
    assert len(listing.waiting) == 2


def test_sorting_by_size(folder, incoming):
    """The smallest comes first."""
    drop(incoming, "a.csv", "xxx")
    drop(incoming, "b.csv", "x")
    assert names(find(folder, FileSelection(sort_by="size")).ready) == ["b.csv", "a.csv"]


def test_recursion_never_enters_the_own_archive(folder, incoming):
    """Sub-folders are searched when asked, the archive and error folders never."""
    for name in ("a.csv", "sub/b.csv", "archive/c.csv", "error/d.csv"):
        drop(incoming, name)
    ignore = ("incoming/archive", "incoming/error/")
    assert names(find(folder, FileSelection(recursive=True), ignore=ignore).ready) == [
        "a.csv",
        "b.csv",
    ]
    assert names(find(folder, FileSelection(), ignore=ignore).ready) == ["a.csv"]


@pytest.mark.parametrize("ignored", ["incoming", "./incoming/"])
def test_an_archive_that_holds_the_folder_itself_is_ours_to_mend(folder, incoming, ignored):
    """Else nothing would ever be found, and every run would be good."""
    drop(incoming, "a.csv")
    with pytest.raises(MisconfiguredError, match=r"archive or error folder.* another place"):
        find(folder, ignore=(ignored,))


@pytest.mark.parametrize(
    "name", ["with space.csv", "ünï.csv", "a'b\".csv", "new\nline.csv", "[x].csv"]
)
def test_any_name_is_taken(folder, incoming, name):
    """Spaces, other scripts, quotes, newlines and brackets are names like any other."""
    drop(incoming, name)
    assert names(find(folder).ready) == [name]


def test_a_missing_folder_says_what_to_do(folder):
    """The operator reads which folder is missing where."""
    with pytest.raises(MisconfiguredError) as failure:
        find_ready_files(folder, "nowhere", FileSelection(), finished=lambda _f: set())
    assert str(failure.value) == (
        "test://: list 'nowhere': there is no such folder; make it, or correct its name"
    )


def test_unknown_options_are_refused():
    """A misspelt option is an error in the run form, not silence."""
    with pytest.raises(ValueError, match="Extra inputs"):
        FileSelection(inclde=["*"])
