"""Declared routing: the first rule whose paths all have their values decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from blocks.errors import BadPayloadError
from tasks.core.intake.inbox.delivery import Delivery
from tasks.core.intake.inbox.routing import Route, route


def delivery(payload, event="record.changed"):
    return Delivery.sample(payload, event=event, integration="crm", id="d")


@pytest.mark.parametrize(
    ("when", "matches"),
    [
        ({"object.type": "Contact"}, True),
        ({"object.type": "Account"}, False),
        ({"object.type": ["Account", "Contact"]}, True),
        ({"object.type": "Contact", "isDeleted": False}, True),
        ({"object.type": "Contact", "isDeleted": True}, False),
        ({"changes.1": "phone"}, True),
        ({"changes.7": "phone"}, False),
        ({"changes.first": "phone"}, False),
        ({"object.type.deeper": "Contact"}, False),
        ({"absent": None}, False),
        ({"parent": None}, True),
        ({"count": True}, False),
        ({"count": 1}, True),
        ({"isDeleted": 0}, False),
        ({"$event": "record.changed"}, True),
        ({"$event": "other"}, False),
        ({}, True),
    ],
)
def test_one_rule(when, matches):
    """Paths lead through objects and lists; values match by equality, true is not 1."""
    payload = {
        "object": {"type": "Contact"},
        "isDeleted": False,
        "changes": ["email", "phone"],
        "parent": None,
        "count": 1,
    }
    found = route(delivery(payload), [Route(when=when, to="contacts")])
    assert found == ("contacts" if matches else None)


def test_first_rule_wins():
    """Rules are tried in order."""
    rules = [Route(when={"a": 2}, to="x"), Route(when={"a": 1}, to="y"), Route(when={}, to="z")]
    assert route(delivery({"a": 1}), rules) == "y"
    assert route(delivery({"a": 3}), rules) == "z"


def test_rules_from_configuration():
    """Rules are read from prefect.yaml, and a misspelt one is refused."""
    rule = Route.model_validate({"when": {"a.0": [1, "1"]}, "to": "x"})
    assert route(delivery({"a": ["1"]}), [rule]) == "x"
    with pytest.raises(ValidationError):
        Route.model_validate({"if": {}, "to": "x"})


def test_payload_that_is_not_json():
    """A payload that is not JSON cannot be routed."""
    broken = delivery({})
    broken = Delivery(
        **{name: getattr(broken, name) for name in broken.__slots__} | {"payload": b"{"}
    )
    with pytest.raises(BadPayloadError):
        route(broken, [Route(when={}, to="x")])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(payload=JSON, path=st.text())
def test_any_payload_and_path(payload, path):
    """No payload and no path makes routing fail."""
    assert route(delivery(payload), [Route(when={path: "never\0"}, to="x")]) in (None, "x")
