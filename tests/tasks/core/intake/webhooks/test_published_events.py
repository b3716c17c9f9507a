"""Events are checked against what their sender publishes, and refused without their values."""

from __future__ import annotations

import pytest

from blocks.errors import BadPayloadError, UnreachableError
from tasks.core.intake.inbox.delivery import Delivery
from tasks.core.intake.webhooks.published_events import PublishedEvents


def document(**properties):
    thing = {
        "type": "object",
        "properties": {"id": {"type": "string"}, "size": {"$ref": "#/components/schemas/Size"}},
        "required": ["id", "size"],
    }
    return {
        "asyncapi": "3.0.0",
        "components": {
            "messages": {
                "made": {"name": "thing.made", "payload": {"$ref": "#/components/schemas/Thing"}}
            },
            "schemas": {"Thing": thing, "Size": {"type": "integer", "minimum": 1, **properties}},
        },
    }


def delivery(payload, event="thing.made"):
    return Delivery.sample(payload, event=event, integration="x", id="d1")


def test_event_as_published_is_given_back():
    """A valid event comes back as it is; the document is fetched once."""
    fetched = []
    published = PublishedEvents(lambda: fetched.append(1) or document())
    for _ in range(3):
        assert published.check(delivery({"id": "a", "size": 1})) == {"id": "a", "size": 1}
    assert len(fetched) == 1


@pytest.mark.parametrize(
    ("payload", "event", "message"),
    [
        ({"id": "a"}, "thing.made", "event: size is missing"),
        ({"id": "secret", "size": 0}, "thing.made", "size: breaks minimum 1"),
        ({"id": 5, "size": "big"}, "thing.made",
         'id: breaks type "string"; size: breaks type "integer"'),
        ([], "thing.made", 'event: breaks type "object"'),
        ({}, "thing.lost", "there is no event 'thing.lost'"),
    ],
)  # fmt: skip
def test_other_event_is_refused(payload, event, message):
    """What breaks the schema is refused, saying where and which rule, without the values."""
    published = PublishedEvents(document)
    with pytest.raises(BadPayloadError) as raised:
        published.check(delivery(payload, event))
    assert str(raised.value) == (
        f"sample: read {event} 'd1': it is not as its sender publishes it: {message}; "
        "nothing was done"
    )


def test_changed_document_is_fetched_before_an_event_is_refused():
    """A sender that changes its schema meanwhile finds its events taken, at most a minute later."""
    documents = [document(maximum=5), document(maximum=9)]
    now = [0.0]
    published = PublishedEvents(lambda: documents.pop(0), clock=lambda: now[0])
    big = delivery({"id": "a", "size": 7})
    for now_s in (0, 59):
        now[0] = now_s
        with pytest.raises(BadPayloadError):
            published.check(big)
    now[0] = 61
    assert published.check(big)["size"] == 7


def test_unreachable_document_is_an_error_for_later():
    """While the document cannot be fetched nothing is refused: the delivery is tried again."""

    def fetch():
        raise UnreachableError("down", system="s", operation="o")

    with pytest.raises(UnreachableError):
        PublishedEvents(fetch).check(delivery({}))


@pytest.mark.parametrize("other", [None, [], {"openapi": "3.1.0"}, {"components": {}}])
def test_other_document_is_named(other):
    """Something else at that address is said to be no AsyncAPI document."""
    with pytest.raises(BadPayloadError, match="is it AsyncAPI 3"):
        PublishedEvents(lambda: other).check(delivery({}))
