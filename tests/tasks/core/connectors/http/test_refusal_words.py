"""What is kept of a refusal: the reason, never a secret, never more than a few lines."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.connectors.http.refusal_words import words_of_refusal

JSON = {"content-type": "application/problem+json; charset=utf-8"}


def words(document):
    return words_of_refusal(JSON, orjson.dumps(document))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"title": "Bad", "detail": "the sku is unknown"}, "the sku is unknown"),
        ({"message": "Validation Failed"}, "Validation Failed"),
        ({"error": {"message": "No such customer", "code": "x"}}, "No such customer"),
        ({"error": "invalid_request", "error_description": "no scope"}, "no scope"),
        (
            {"detail": "invalid", "errors": [{"field": "a.b", "reason": "too long"}]},
            "invalid; a.b: too long",
        ),
        (
            {"message": "no", "errors": [{"resource": "Issue", "code": "missing_field"}]},
            "no; Issue: missing_field",
        ),
        ({"errors": {"email": ["is taken", "is odd"]}}, "email: is taken; email: is odd"),
        ({"errors": ["first", "second"]}, "first; second"),
        ([{"errorCode": "X", "message": "malformed id"}], "malformed id"),
        ("plainly no", "plainly no"),
        ({"status": 422}, ""),
        (None, ""),
    ],
)
def test_reason_is_found_where_apis_put_it(document, expected):
    """The fields of RFC 9457, OAuth, GitHub, Rails and Salesforce are known."""
    assert words(document) == expected


@pytest.mark.parametrize(
    "secret",
    [
        "Bearer abc.def",
        "the key sk_live_4f9a8b7c6d5e4f3a2b1c0d9e is wrong",
        "call https://api.example/x?token=abc&user=1",
        "https://user:pass@host/x",
        "mail ann.smith@example.com",
        "card 4111 1111 1111 1111 declined",
        "token eyJhbGciOiJIUzI1NiJ9eyJzdWIiOiIxIn0",
    ],
)
def test_what_looks_secret_is_masked(secret):
    """Credentials, addresses' queries, e-mail addresses, cards and long tokens do not get out."""
    said = words({"detail": secret})
    assert "***" in said
    for leak in ("abc", "sk_live", "pass@", "ann.smith", "4111", "eyJ"):
        assert leak not in said


def test_ordinary_words_are_kept():
    """Names of fields, order numbers and short codes stay readable."""
    said = "order SO-0301093000 of 2026-03-01: quantity_of_the_first_parcel must be > 0 (E1042)"
    assert words({"detail": said}) == said


def test_other_kinds_of_answers():
    """Plain text is taken, pages and damaged JSON are not."""
    assert words_of_refusal({"content-type": "text/plain"}, b"no\n such\x00 thing") == (
        "no such thing"
    )
    assert words_of_refusal({"content-type": "text/html"}, b"<h1>no</h1>") == ""
    assert words_of_refusal(JSON, b"{") == ""
    assert words_of_refusal({}, b"no") == ""


@given(st.binary(max_size=2000), st.sampled_from(["application/json", "text/plain"]))
def test_any_answer_gives_a_short_line(body, kind):
    """Whatever comes, at most 300 printable characters are kept."""
    said = words_of_refusal({"content-type": kind}, body)
    assert len(said) <= 300
    assert said.isprintable()
