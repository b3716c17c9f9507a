"""Link headers, well-formed and hostile."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.connectors.http.field_values import split_members
from tasks.core.connectors.http.links import parse_links


@pytest.mark.parametrize(
    ("value", "links"),
    [
        ('<https://h/?page=2>; rel="next"', {"next": "https://h/?page=2"}),
        ("<https://h/?ids=1,2;3>; rel=next", {"next": "https://h/?ids=1,2;3"}),
        ('<a>; rel="prev", <b>; rel="next"', {"prev": "a", "next": "b"}),
        ('<a>; rel="next last"', {"next": "a", "last": "a"}),
        ('<a>; title="x; rel=\\"prev\\", <c>"; rel="next"', {"next": "a"}),
        ('<a>;REL="Next"', {"next": "a"}),
        ('<a>; rel="next"; rel="prev"', {"next": "a"}),
        ('<a>; rel="next", <b>; rel="next"', {"next": "a"}),
        ("<>; rel=next", {"next": ""}),
        ("a; rel=next", {}),
        ("<a; rel=next", {}),
        ("<a>", {}),
        ("", {}),
    ],
)
def test_links_are_read_by_relation(value, links):
    """Targets may hold commas and semicolons, relations come quoted, bare or several at once."""
    assert parse_links(value) == links


@settings(deadline=None)
@given(st.text(max_size=200))
def test_hostile_links_are_left_out(value):
    """Any text yields a mapping of text to text, and never an error."""
    for relation, target in parse_links(value).items():
        assert relation
        assert target in value


@settings(deadline=None)
@given(st.text(alphabet='<>";,= \\ar', max_size=40))
def test_splitting_loses_nothing_but_separators_and_blanks(value):
    """Members joined again are the value, save for the blanks around them."""
    members = list(split_members(value, ","))
    assert ",".join(members).replace(" ", "") == value.replace(" ", "")


def test_splitting_takes_linear_time():
    """A million unclosed quotes are split as fast as anything else."""
    assert len(list(split_members('"<' * 500_000, ","))) == 1


@settings(deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        st.from_regex(r"https://[a-z]{1,5}/[a-z0-9?=&,;]{0,20}", fullmatch=True),
        min_size=1,
    )
)
def test_written_links_read_back(links):
    """Any well-formed links read back as written."""
    value = ", ".join(f'<{target}>; rel="{relation}"' for relation, target in links.items())
    assert parse_links(value) == links
