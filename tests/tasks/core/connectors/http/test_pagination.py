"""How each style asks for a page and knows that it was the last one."""

from __future__ import annotations

import httpx
import pytest
from pydantic import TypeAdapter, ValidationError

from blocks.errors import BadPayloadError
from tasks.core.connectors.http.errors import Where
from tasks.core.connectors.http.pagination import (
    BodyCursor,
    HeaderCursor,
    LastRecord,
    LinkHeader,
    NextUrl,
    OffsetLimit,
    PageNumber,
    PageRequest,
    PageResponse,
    Pagination,
    SinglePage,
)

WHERE = Where(system="https://api.example", operation="GET /orders", record=None)


def page(position=None, *, records=(1, 2), url="https://api.example/v1/orders?a=b", **parts):
    return PageResponse(
        position,
        {"items": list(records), **parts.get("body", {})},
        list(records),
        httpx.Headers(parts.get("headers")),
        httpx.URL(url),
        WHERE,
    )


@pytest.mark.parametrize(
    ("style", "position", "ask"),
    [
        (SinglePage(), None, PageRequest()),
        (PageNumber(), None, PageRequest({"page": 1})),
        (PageNumber(first_page=0), None, PageRequest({"page": 0})),
        (
            PageNumber(size_param="per_page", page_size=50),
            3,
            PageRequest({"page": 3, "per_page": 50}),
        ),
        (OffsetLimit(limit=10), None, PageRequest({"offset": 0, "limit": 10})),
        (OffsetLimit(limit=10, offset_param="skip"), 20, PageRequest({"skip": 20, "limit": 10})),
        (BodyCursor(), None, PageRequest()),
        (BodyCursor(cursor_param="after"), "x", PageRequest({"after": "x"})),
        (HeaderCursor(cursor_header="X-Next"), "x", PageRequest({"cursor": "x"})),
        (LastRecord(), 7, PageRequest({"starting_after": 7})),
        (LinkHeader(), "https://api.example/2", PageRequest(url="https://api.example/2")),
        (NextUrl(), None, PageRequest()),
    ],
)
def test_pages_are_asked_for(style, position, ask):
    """Each style turns a position into parameters or an address."""
    assert style.ask(position) == ask


@pytest.mark.parametrize(
    ("style", "answered", "following"),
    [
        (SinglePage(), page(), None),
        (PageNumber(), page(), 2),
        (PageNumber(), page(5), 6),
        (PageNumber(), page(5, records=()), None),
        (PageNumber(total_pages_path="pages"), page(2, body={"pages": 3}), 3),
        (PageNumber(total_pages_path="pages"), page(3, body={"pages": 3}), None),
        (PageNumber(total_pages_path="pages", first_page=0), page(2, body={"pages": 3}), None),
        (PageNumber(total_pages_path="pages"), page(2, records=(), body={"pages": 3}), None),
        (PageNumber(total_records_path="n", page_size=2), page(2, body={"n": 4}), None),
        (PageNumber(total_records_path="n", page_size=2), page(2, body={"n": 5}), 3),
        (PageNumber(has_more_path="more"), page(2, body={"more": True}), 3),
        (PageNumber(has_more_path="more"), page(2, body={"more": "false"}), None),
        (PageNumber(page_size=3), page(2), 3),
        (PageNumber(page_size=3, short_page_is_last=True), page(2), None),
        (PageNumber(page_size=2, short_page_is_last=True), page(2), 3),
        (OffsetLimit(), page(), 2),
        (OffsetLimit(), page(4), 6),
        (OffsetLimit(), page(4, records=()), None),
        (OffsetLimit(total_records_path="n"), page(4, body={"n": 6}), None),
        (OffsetLimit(total_records_path="n"), page(4, body={"n": 7}), 6),
        (OffsetLimit(limit=3, short_page_is_last=True), page(4), None),
        (BodyCursor(), page(body={"next_cursor": "x"}), "x"),
        (BodyCursor(), page(body={"next_cursor": 7}), 7),
        (BodyCursor(cursor_path="meta.next"), page(body={"meta": {"next": "x"}}), "x"),
        (BodyCursor(), page(body={"next_cursor": None}), None),
        (BodyCursor(), page(body={"next_cursor": ""}), None),
        (BodyCursor(), page(), None),
        (BodyCursor(), page(records=(), body={"next_cursor": "x"}), "x"),
        (HeaderCursor(cursor_header="X-Next"), page(headers={"x-next": "x"}), "x"),
        (HeaderCursor(cursor_header="X-Next"), page(), None),
        (LastRecord(), page(records=({"id": 1}, {"id": 2})), 2),
        (LastRecord(id_path="a.b"), page(records=({"a": {"b": "x"}},)), "x"),
        (LastRecord(), page(records=()), None),
        (
            LastRecord(has_more_path="more"),
            page(records=({"id": 1},), body={"more": False}),
            None,
        ),
        (
            LinkHeader(),
            page(headers={"Link": '</v1/orders?page=2>; rel="next"'}),
            "https://api.example/v1/orders?page=2",
        ),
        (LinkHeader(), page(headers={"Link": '<x>; rel="prev"'}), None),
        (LinkHeader(relation="More"), page(headers={"Link": "<?p=2>; rel=more"}),
         "https://api.example/v1/orders?p=2"),
        (LinkHeader(), page(), None),
        (NextUrl(), page(body={"next": "?page=2"}), "https://api.example/v1/orders?page=2"),
        (NextUrl(), page(body={"next": "https://h/x"}), "https://h/x"),
        (NextUrl(), page(body={"next": None}), None),
        (NextUrl(), page(), None),
    ],
)  # fmt: skip
def test_the_next_page_is_known_or_there_is_none(style, answered, following):
    """Each style finds the next position and stops by its own rule."""
    assert style.following(answered) == following


@pytest.mark.parametrize(
    ("style", "answered"),
    [
        (PageNumber(total_pages_path="pages"), page()),
        (PageNumber(has_more_path="more"), page()),
        (OffsetLimit(total_records_path="n"), page(body={"n": "many"})),
        (BodyCursor(), page(body={"next_cursor": {"a": 1}})),
        (BodyCursor(), page(body={"next_cursor": True})),
        (LastRecord(), page(records=({"key": 1},))),
        (LastRecord(), page(records=("text",))),
        (NextUrl(), page(body={"next": ["x"]})),
        (NextUrl(), page(body={"next": "http://[::"})),
        (LinkHeader(), page(headers={"Link": "<http://[::>; rel=next"})),
    ],
)
def test_answer_of_another_form_is_refused(style, answered):
    """A field that is declared and is not there is an error, not an early end."""
    with pytest.raises(BadPayloadError):
        style.following(answered)


@pytest.mark.parametrize(
    ("style", "answered", "expected"),
    [
        (PageNumber(total_pages_path="n"), page(body={"n": 4}), [2, 3, 4]),
        (PageNumber(total_pages_path="n", first_page=0), page(body={"n": 4}), [1, 2, 3]),
        (PageNumber(total_pages_path="n"), page(3, body={"n": 4}), [4]),
        (PageNumber(total_pages_path="n"), page(body={"n": 0}), []),
        (PageNumber(total_records_path="n", page_size=2), page(body={"n": 5}), [2, 3]),
        (PageNumber(total_records_path="n"), page(body={"n": 5}), None),
        (PageNumber(), page(), None),
        (OffsetLimit(total_records_path="n"), page(body={"n": 7}), [2, 4, 6]),
        (OffsetLimit(total_records_path="n"), page(2, body={"n": 7}), [4, 6]),
        (OffsetLimit(total_records_path="n"), page(body={"n": 2}), []),
        (OffsetLimit(total_records_path="n"), page(records=(), body={"n": 0}), None),
        (OffsetLimit(), page(), None),
    ],
)
def test_all_further_pages_are_known_from_the_first(style, answered, expected):
    """Where the answer tells a total, the positions of all pages follow from it."""
    found = style.expected(answered)
    assert (None if found is None else list(found)) == expected


def test_styles_are_chosen_by_kind():
    """Options from a file or a form become the style they name, and mistakes are told."""
    pagination = TypeAdapter(Pagination)
    assert pagination.validate_python({"kind": "cursor", "cursor_path": "x"}) == BodyCursor(
        cursor_path="x"
    )
    for wrong in ({"kind": "magic"}, {"kind": "cursor", "cursor_pth": "x"}):
        with pytest.raises(ValidationError):
            pagination.validate_python(wrong)
