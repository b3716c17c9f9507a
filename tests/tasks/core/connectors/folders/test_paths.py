"""No path leaves its place, whoever wrote it."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import PermanentError
from tasks.core.connectors.folders.paths import clean_path, join, listed_path, parent, part_path

# Weighted towards what matters in paths.
PATHS = st.lists(
    st.one_of(st.sampled_from(["..", ".", "", "/", "a", "\0", "~"]), st.text(max_size=5)),
    max_size=6,
).map("/".join)


def clean(path, **options):
    return clean_path(path, system="s", operation="o", **options)


@given(PATHS)
def test_what_is_let_through_stays_inside(path):
    """A path is either refused or, joined to a root, still below that root."""
    try:
        cleaned = clean(path)
    except PermanentError:
        return
    assert posixpath.normpath(posixpath.join("/root", cleaned)) == f"/root/{cleaned}"
    assert clean(cleaned) == cleaned
    cleaned.encode()


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("a", "a"),
        ("a//b/", "a/b"),
        ("./a/./b", "a/b"),
        ("a..b/..c", "a..b/..c"),
        ("a b\n", "a b\n"),
    ],
)
def test_a_path_has_one_form(path, cleaned):
    """Doubled slashes and "." parts go; dots within names stay."""
    assert clean(path) == cleaned


@pytest.mark.parametrize("path", ["", ".", "/", "./", "././"])
def test_the_root_is_only_a_folder(path):
    """It has several names, and none of them is a file."""
    assert clean(path, may_be_root=True) == ""
    with pytest.raises(PermanentError, match=r"names no file|is absolute"):
        clean(path)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/etc/passwd", "is absolute"),
        ("//server/share", "is absolute"),
        ("a/../../b", "leads out of its folder"),
        ("..", "leads out of its folder"),
        ("a\0.csv", "holds a NUL character"),
        ("a\udcf6.csv", "is not valid Unicode"),
    ],
)
def test_a_refusal_says_why(path, why):
    """The message names the path, what is wrong with it and what would be right."""
    with pytest.raises(PermanentError) as caught:
        clean(path, may_be_root=True)
    assert caught.value.message == f"the path {why}; give one relative to the root, without '..'"
    assert caught.value.record == path


@given(st.one_of(st.text(max_size=8), st.binary(max_size=8), st.sampled_from([".", "..", ""])))
def test_a_listed_name_is_one_name_or_left_out(name):
    """Whatever a server calls its files, the path has exactly one part more than the folder's."""
    path = listed_path("in", name, system="s")
    if path is not None:
        assert parent(path) == "in"
        assert clean(path) == path


@given(st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=255))
def test_a_part_has_room_for_its_name(name):
    """The hidden name is beside the file, is never the same twice and fits any disk."""
    first, second = part_path(join("in", name)), part_path(join("in", name))
    assert first != second
    assert parent(first) == "in"
    assert len(first.removeprefix("in/").encode()) <= 255
    assert first.startswith("in/.")
    assert first.endswith(".part")
