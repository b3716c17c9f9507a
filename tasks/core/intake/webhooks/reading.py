"""Reads a verified body: its events, their types and their keys."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from tasks.core.intake.webhooks.form_fields import body_fields, is_form, query_fields
from tasks.core.intake.webhooks.request import (
    Proof,
    ReceivedEvent,
    WebhookRequest,
    as_payload,
    malformed,
    misconfigured,
)

DIGEST = "digest"
SIGNED_ID = "signed-id"
NOTHING = "nothing"
_MAX_KEY_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Where a sender's requests hold the event's type and keys.

    A place is "header:NAME", "field:path.to.value" or several fields joined by "+"; the parts of
    a path are names, or positions in lists counted from 0. The first of several places that has a
    value counts.

    Attributes:
        event_type: Where the event's type is.
        dedup: Where an id is that stays the same when the event is sent again: a place, or
            "signed-id" for the id that the signature covers, "digest" for the hash of the body,
            "nothing" if every request is a new event. "digest" is the last resort.
        ordering_key: Where the id is of the thing whose events are handled in order.
        content: "json" for objects only, "json-or-form", or "anything": then JSON and forms are
            parsed and other bodies are left as they are.
        is_batch: Whether the body is a JSON array of events.
        digest_covers_type: For senders that send the same body for several event types.
    """

    event_type: Sequence[str] = ()
    dedup: Sequence[str] = ()
    ordering_key: Sequence[str] = ()
    content: Literal["json", "json-or-form", "anything"] = "anything"
    is_batch: bool = False
    digest_covers_type: bool = False


ReadEvents = Callable[[WebhookRequest, Proof], tuple[ReceivedEvent, ...]]


def reader(scheme: str, reading: Reading) -> ReadEvents:
    """Return the function that reads the events of a verified request.

    Raises:
        MisconfiguredError: A place is not written as described in `Reading`.
    """
    event_type = _places(scheme, reading.event_type)
    ordering_key = _places(scheme, reading.ordering_key)
    dedup = _places(scheme, reading.dedup)

    def read(request: WebhookRequest, proof: Proof) -> tuple[ReceivedEvent, ...]:
        document, is_body = _document(scheme, request, reading)

        def event(content: Any, payload: bytes | None) -> ReceivedEvent:
            kind = _printable(_first(event_type, request, proof, content) or "")
            key = _first(dedup, request, proof, content)
            if key is None:
                key = digest(request, payload, covering=kind if reading.digest_covers_type else "")
            order = _first(ordering_key, request, proof, content)
            return ReceivedEvent(kind, _key(key), None if order is None else _key(order), payload)

        if not reading.is_batch:
            payload = None if is_body or document is None else as_payload(scheme, document)
            return (event(document, payload),)
        return tuple(event(content, as_payload(scheme, content)) for content in document)

    return read


def digest(request: WebhookRequest, payload: bytes | None = None, *, covering: str = "") -> str:
    """Return the dedup key for an event without id: a hash of the payload, body or URL."""
    content = payload or request.body or request.url.encode("utf-8", "surrogatepass")
    prefix = covering.encode() + b"\n" if covering else b""
    return f"sha256:{hashlib.sha256(prefix + content).hexdigest()}"


def dropbox_events(request: WebhookRequest, _proof: Proof) -> tuple[ReceivedEvent, ...]:
    """Return one event per account in which something changed.

    Each counts as a new event, even if two look alike: the next change of the same account
    comes with the same body.
    """
    try:
        accounts = orjson.loads(request.body)["list_folder"]["accounts"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise malformed("dropbox", "the body lists no accounts under list_folder") from exc
    if not isinstance(accounts, list) or not all(isinstance(one, str) for one in accounts):
        raise malformed("dropbox", "the accounts under list_folder are no list of ids")
    return tuple(
        ReceivedEvent(
            event_type="list_folder",
            dedup_key=uuid.uuid4().hex,
            ordering_key=_key(account),
            payload=orjson.dumps({"account": account}),
        )
        for account in accounts
    )


Place = Callable[[WebhookRequest, Proof, Any], str | None]


def _places(scheme: str, texts: Sequence[str]) -> list[Place]:
    return [_place(scheme, text) for text in texts if text != DIGEST]


def _place(scheme: str, text: str) -> Place:
    kind, _, rest = text.partition(":")
    if text == SIGNED_ID:
        return lambda _request, proof, _content: proof.signed_id
    if text == NOTHING:
        return lambda _request, _proof, _content: uuid.uuid4().hex
    if kind == "header" and rest:
        name = rest.strip().lower()
        return lambda request, _proof, _content: request.headers.get(name)
    if kind == "field" and rest:
        paths = [path.strip().split(".") for path in rest.split("+")]
        return lambda _request, _proof, content: _joined(content, paths)
    raise misconfigured(
        scheme,
        f"{text!r} is not a place; write header:NAME, field:path.to.value, field:one+other, "
        f"{SIGNED_ID}, {DIGEST} or {NOTHING}",
    )


def _first(
    places: Sequence[Place], request: WebhookRequest, proof: Proof, content: Any
) -> str | None:
    for place in places:
        found = place(request, proof, content)
        if found:
            return found
    return None


def _joined(content: Any, paths: Sequence[Sequence[str]]) -> str | None:
    values = [_value(content, path) for path in paths]
    return ":".join(values) if all(values) else None


def _value(content: Any, path: Sequence[str]) -> str:
    for name in path:
        if isinstance(content, dict):
            content = content.get(name)
        elif isinstance(content, list) and name.isdecimal() and int(name) < len(content):
            content = content[int(name)]
        else:
            return ""
    if isinstance(content, bool) or not isinstance(content, str | int | float):
        return ""
    return str(content)


def _document(scheme: str, request: WebhookRequest, reading: Reading) -> tuple[Any, bool]:
    """Return the parsed body, and whether the body itself is that document."""
    may_be_form = reading.content != "json" and not reading.is_batch
    may_be_empty = reading.content == "anything" and may_be_form
    if (may_be_form and is_form(request)) or (may_be_empty and not request.body):
        return _form(scheme, request), False
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    must_be_json = not may_be_empty or content_type.endswith("json")
    if not must_be_json and content_type not in ("", "text/plain"):
        return None, True
    try:
        document = orjson.loads(request.body)
    except orjson.JSONDecodeError as exc:
        if must_be_json:
            raise malformed(scheme, "the body is not JSON") from exc
        return None, True
    if reading.is_batch:
        if not isinstance(document, list):
            raise malformed(scheme, "the body is no JSON array of events")
    elif not (may_be_empty or isinstance(document, dict)):
        raise malformed(scheme, "the body is no JSON object")
    return document, True


def _form(scheme: str, request: WebhookRequest) -> Any:
    try:
        pairs = body_fields(request) if request.body else query_fields(request.url)
    except ValueError as exc:
        raise malformed(scheme, "the form has too many fields") from exc
    fields: dict[str, Any] = {}
    for name, value in pairs:
        known = fields.get(name)
        if known is None:
            fields[name] = value
        elif isinstance(known, list):
            known.append(value)
        else:
            fields[name] = [known, value]
    # GitHub and Slack put JSON into a single field "payload" when configured to send forms.
    if list(fields) == ["payload"]:
        try:
            return orjson.loads(fields["payload"])
        except (orjson.JSONDecodeError, TypeError) as exc:
            raise malformed(scheme, "the field payload is not JSON") from exc
    return fields


def _key(text: str) -> str:
    # Databases accept neither NUL nor unlimited keys; such keys are replaced by their hash.
    if len(text) <= _MAX_KEY_LENGTH and text.isprintable():
        return text
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _printable(text: str) -> str:
    return text if text.isprintable() and len(text) <= _MAX_KEY_LENGTH else ""
