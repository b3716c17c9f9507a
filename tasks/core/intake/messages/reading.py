"""Turns a message into an inbox delivery: its event, idempotency key and ordering key."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson

from blocks.errors import BadPayloadError, MisconfiguredError
from tasks.core.connectors.messages.decoding import Decoder
from tasks.core.connectors.messages.message import Message
from tasks.core.intake.inbox.new_delivery import NewDelivery

_MAX_KEY_LENGTH = 200
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")

Place = Callable[[Message, Any], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReading:
    """Where a source's messages hold the event's name and keys.

    A place is "source" (what the source itself knows), "subject", "header:NAME",
    "field:path.to.value", "text:WORD", "digest" (of the body) or "nothing"; the first of several
    places that has a value counts.

    Attributes:
        integration: The integration whose inbox it is.
        endpoint: The source's name.
        event: Where the event's name is.
        dedup: Where an id is that stays the same on redelivery. With "nothing" every message
            counts as a new event.
        ordering_key: Where the id is of the thing whose events are handled in order.
        decoder: Decodes the bodies.
        max_body_bytes: Larger messages are dead-lettered.
        keep_bytes: Only the head of a message larger than this is stored.
    """

    integration: str
    endpoint: str
    event: Sequence[str] = ("subject",)
    dedup: Sequence[str] = ("source", "nothing")
    ordering_key: Sequence[str] = ("source",)
    decoder: Decoder
    max_body_bytes: int = 1024 * 1024
    keep_bytes: int = 256 * 1024 * 1024


class MessageReader:
    """Reads the messages of one source.

    Args:
        reading: How to read them.

    Raises:
        MisconfiguredError: A place is not written as described in `MessageReading`.
    """

    def __init__(self, reading: MessageReading) -> None:
        self._reading = reading
        self._event = [_place(text) for text in reading.event]
        self._dedup = [_dedup_place(text) for text in reading.dedup]
        self._ordering_key = [_ordering_place(text) for text in reading.ordering_key]
        texts = (*reading.event, *reading.dedup, *reading.ordering_key)
        self._needs_document = any(text.startswith("field:") for text in texts)

    async def delivery(self, message: Message, *, received_at: datetime) -> NewDelivery:
        """Return the delivery to store; an unreadable one is a dead letter with its raw bytes.

        Raises:
            TransientError: Something that decoding needs is unavailable right now.
        """
        reading = self._reading
        payload, defect = message.content, message.defect
        body = message.body
        if defect is None and len(body) > reading.max_body_bytes:
            defect = f"{len(body)} bytes are more than the {reading.max_body_bytes} allowed"
        if defect is None:
            try:
                decoded = await reading.decoder.decode(body if payload is None else payload)
                payload = payload if decoded is None else decoded
            except BadPayloadError as error:
                defect = error.message
        document = self._document(payload or body) if defect is None else None
        key = _first(self._dedup, message, document)
        if key is None and defect is not None:  # on redelivery it is not dead-lettered again
            key = message.identity or _digest(message)
        order = _first(self._ordering_key, message, document)
        if len(body) > reading.keep_bytes:
            body = body[: reading.keep_bytes]
        return NewDelivery(
            integration=reading.integration,
            endpoint=reading.endpoint,
            event=_storable(_first(self._event, message, document) or ""),
            dedup_key=_key(key or uuid.uuid4().hex),
            ordering_key=None if order is None else _key(order),
            headers=_headers(message),
            body=body,
            payload=payload if defect is None else message.content,
            content_type=_storable(message.content_type),
            received_at=received_at,
            dead_letter_reason=None if defect is None else _UNSTORABLE.sub("?", defect),
        )

    def _document(self, content: bytes) -> Any:
        if not self._needs_document:
            return None
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            return None


def _first(places: Sequence[Place], message: Message, document: Any) -> str | None:
    for place in places:
        found = place(message, document)
        if found:
            return found
    return None


def _dedup_place(text: str) -> Place:
    if text == "source":
        return lambda message, _document: message.identity
    if text == "digest":
        return lambda message, _document: _digest(message)
    return _place(text)


def _ordering_place(text: str) -> Place:
    if text == "source":
        return lambda message, _document: message.key
    return _place(text)


def _place(text: str) -> Place:
    kind, _, rest = text.partition(":")
    if text == "nothing":
        return lambda _message, _document: None
    if text == "subject":
        return lambda message, _document: message.subject
    if kind == "text" and rest:
        return lambda _message, _document: rest
    if kind == "header" and rest:
        name = rest.strip().lower()
        return lambda message, _document: next(
            (value for each, value in message.headers if each.lower() == name), None
        )
    if kind == "field" and rest:
        path = rest.strip().split(".")
        return lambda _message, document: _value(document, path)
    raise MisconfiguredError(
        f"{text!r} is not a place; write source, subject, header:NAME, field:path.to.value, "
        "text:WORD, digest or nothing",
        system="listener",
        operation="configure",
    )


def _digest(message: Message) -> str:
    return f"sha256:{hashlib.sha256(message.body).hexdigest()}"


def _value(document: Any, path: Sequence[str]) -> str | None:
    for name in path:
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    if isinstance(document, bool) or not isinstance(document, str | int | float):
        return None
    return str(document)


def _headers(message: Message) -> bytes:
    try:
        return orjson.dumps(message.headers)
    except TypeError:  # a name or value with half of a surrogate pair
        return orjson.dumps([(_storable(n), _storable(v)) for n, v in message.headers])


def _key(text: str) -> str:
    # Databases accept neither NUL nor unlimited keys; such keys are replaced by their hash.
    if len(text) <= _MAX_KEY_LENGTH and text.isprintable():
        return text
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


@lru_cache(maxsize=1024)  # most messages are of a few events and types
def _storable(text: str) -> str:
    return _UNSTORABLE.sub("?", text[:_MAX_KEY_LENGTH])
