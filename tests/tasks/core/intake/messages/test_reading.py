"""What a delivery made of a message is called, how it is known, and when it is dead-lettered."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import MisconfiguredError
from tasks.core.connectors.messages.decoding import AnyBytes, JsonDecoder
from tasks.core.connectors.messages.message import Message
from tasks.core.intake.messages.reading import MessageReader, MessageReading

NOW = datetime(2026, 3, 1, tzinfo=UTC)


async def read(message, **options):
    options = {"decoder": JsonDecoder(), **options}
    reader = MessageReader(MessageReading(integration="i", endpoint="e", **options))
    return await reader.delivery(message, received_at=NOW)


async def test_places_are_asked_in_order_and_the_first_that_holds_something_counts():
    """Event, identity and order come from header, payload, source or subject as declared."""
    message = Message(
        "orders", b'{"order": {"no": 7}}', None, identity="p:0:1", headers=[("T", "new")]
    )
    delivery = await read(
        message, event=["header:t", "subject"], dedup=["field:order.no"], ordering_key=["field:x.y"]
    )
    assert (delivery.event, delivery.dedup_key, delivery.ordering_key) == ("new", "7", None)
    delivery = await read(message, event=["header:none", "subject"])
    assert (delivery.event, delivery.dedup_key) == ("orders", "p:0:1")


async def test_a_message_without_identity_is_never_taken_for_another():
    """Two equal messages that nobody can tell apart are two deliveries, unless declared else."""
    message = Message("orders", b"{}", None)
    keys = [(await read(message)).dedup_key for _ in range(2)]
    assert keys[0] != keys[1]
    digests = {(await read(message, dedup=["digest"])).dedup_key for _ in range(2)}
    assert len(digests) == 1


async def test_a_defective_message_that_comes_again_is_dead_lettered_once():
    """Where the declared id cannot be read, the source's identity or the bytes stand in."""
    keys = {(await read(Message("s", b"{{", None), dedup=["field:id"])).dedup_key for _ in range(2)}
    assert len(keys) == 1


def test_a_place_that_is_none_is_refused():
    """A misspelt place is an error when the source is declared, not when messages come."""
    with pytest.raises(MisconfiguredError, match="is not a place"):
        MessageReader(
            MessageReading(integration="i", endpoint="e", decoder=AnyBytes(), event=["headers:x"])
        )


@given(
    body=st.binary(max_size=300),
    subject=st.text(st.characters(blacklist_categories=()), max_size=300),
    name=st.text(st.characters(blacklist_categories=()), max_size=20),
    value=st.text(st.characters(blacklist_categories=()), max_size=300),
    identity=st.none() | st.text(max_size=300),
)
async def test_whatever_a_sender_writes_can_be_stored(body, subject, name, value, identity):
    """No subject, header, id or body makes a delivery that a database refuses."""
    message = Message(subject, body, None, identity=identity, headers=[(name, value)])
    delivery = await read(message, event=["subject"], dedup=[f"header:{name or 'x'}", "source"])
    for text in (
        delivery.event,
        delivery.dedup_key,
        delivery.content_type,
        delivery.dead_letter_reason,
    ):
        assert text is None or not ("\0" in text or any("\ud800" <= c <= "\udfff" for c in text))
    assert delivery.body == body
    assert len(delivery.dedup_key) <= 200
    orjson.loads(delivery.headers)
