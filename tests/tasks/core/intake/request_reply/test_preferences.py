"""What callers prefer, and what makes two requests the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.intake.request_reply.preferences import (
    Preference,
    read_idempotency_key,
    read_preference,
    request_digest,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Preference()),
        (["wait=10"], Preference(10)),
        (['Wait = "10"'], Preference(10)),
        (["respond-async, wait=5"], Preference(5, is_async=True)),
        (["return=minimal", "respond-async; x=1"], Preference(None, is_async=True)),
        (["wait=1, wait=9"], Preference(1)),
        (["wait=-1", "wait=soon", "wait"], Preference()),
        (["wait=0"], Preference(0)),
    ],
)
def test_preferences(values, expected):
    """RFC 7240: names in any case, several headers, the first of equals; nonsense is ignored."""
    assert read_preference(values) == expected


@given(st.lists(st.text(max_size=40), max_size=4))
def test_nothing_a_caller_prefers_fails(values):
    """Hostile headers never raise."""
    assert read_preference(values).waits_s(10) <= 10


@pytest.mark.parametrize(
    ("preference", "waits_s", "applied"),
    [
        (Preference(), 10, ""),
        (Preference(3), 3, "wait=3"),
        (Preference(30), 10, ""),
        (Preference(None, is_async=True), 0, "respond-async"),
        (Preference(3, is_async=True), 3, "respond-async, wait=3"),
        (Preference(0), 0, "wait=0"),
    ],
)
def test_how_long_to_wait(preference, waits_s, applied):
    """As long as is preferred, within the deadline; only what was kept to is said."""
    assert preference.waits_s(10) == waits_s
    assert preference.applied(10) == applied


@pytest.mark.parametrize(
    ("value", "key"),
    [(None, None), ("abc", "abc"), ('"a b"', "a b"), ('"a\\"b"', 'a"b'), (" x ", "x")],
)
def test_idempotency_keys(value, key):
    """With quotation marks, as drafted, and without, as most clients send them."""
    assert read_idempotency_key(value) == key


@pytest.mark.parametrize("value", ["", '""', "a" * 201, "a\tb", "schlüssel"])
def test_unusable_keys(value):
    """What is no key is refused and not taken for none."""
    with pytest.raises(ValueError, match="Idempotency-Key"):
        read_idempotency_key(value)


def test_digest_tells_requests_apart():
    """Method, query, content type and body all count, and none flows into the next."""
    requests = [
        ("POST", b"", "a/b", b"x"),
        ("PUT", b"", "a/b", b"x"),
        ("POST", b"a=1", "a/b", b"x"),
        ("POST", b"", "a/bx", b""),
        ("POST", b"", "a/b", b"y"),
    ]
    assert len({request_digest(*each) for each in requests}) == len(requests)
