"""Fields of answers are found, or their absence is told without their contents."""

from __future__ import annotations

import pytest

from blocks.errors import BadPayloadError
from tasks.core.connectors.http.errors import Where
from tasks.core.connectors.http.response_fields import (
    count_of,
    field,
    flag_of,
    optional_field,
    records_of,
)

WHERE = Where(system="https://api.example", operation="GET /orders", record=None)
BODY = {"data": {"items": [1]}, "meta": {"next": None, "total": "12", "more": "False"}}


def test_fields_are_found_by_dotted_path():
    """A path leads through objects; the empty path is the whole."""
    assert field(BODY, "data.items", WHERE) == [1]
    assert field(BODY, "", WHERE) is BODY
    assert field(BODY, "meta.next", WHERE) is None
    assert optional_field(BODY, "data.items.0") is None


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ({"b": "secret", "a": 1}, "an object with a, b"),
        ({}, "an empty object"),
        (["secret"], "a list of 1"),
        ("secret", "a str"),
        (None, "null"),
    ],
)
def test_missing_field_is_told_by_shape(body, shape):
    """The error says what the answer is, with names but without values."""
    with pytest.raises(BadPayloadError, match=rf"no 'data' \(it is {shape}\)") as caught:
        field(body, "data", WHERE)
    assert "secret" not in str(caught.value)


def test_counts_and_flags_may_be_text():
    """APIs give numbers and booleans as text, too."""
    assert count_of(BODY, "meta.total", WHERE) == 12
    assert flag_of(BODY, "meta.more", WHERE) is False
    assert (count_of(0, "", WHERE), flag_of(True, "", WHERE)) == (0, True)


@pytest.mark.parametrize("value", [True, -1, 1.5, "1.5", "²", None, [], "9" * 20])
def test_what_is_no_count_is_refused(value):
    """A total that is no natural number is an error, not a guess."""
    with pytest.raises(BadPayloadError, match="not a number"):
        count_of({"total": value}, "total", WHERE)


@pytest.mark.parametrize("value", [0, 1, "yes", None])
def test_what_is_no_flag_is_refused(value):
    """Something that is neither true nor false is an error, not a guess."""
    with pytest.raises(BadPayloadError, match="not true or false"):
        flag_of({"more": value}, "more", WHERE)


def test_records_are_a_list():
    """Anything but a list of records is an error."""
    with pytest.raises(BadPayloadError, match="data is an object with items, not a list"):
        records_of(BODY, "data", WHERE)
