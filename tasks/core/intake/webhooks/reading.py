"""What a verified body says: its events, their types, and what makes each of them unique."""

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
    """Where one kind of sender puts what we want to know.

    A place is "header:NAME", "field:path.to.value" or several fields joined by "+"; the parts of
    a path are names, or positions in lists counted from 0. Of several places the first that
    holds something counts.

    Attributes:
        event_type: Where the event's type stands.
        dedup: Where an id stands that is the same when the event is sent again: a place, or
            "signed-id" for the id that the signature covers, "digest" for the hash of the body,
            "nothing" when every request is an event of its own. "digest" is the last resort.
        ordering_key: Where the thing stands whose events are to be handled in order.
        content: "json" for an object and nothing else, "json-or-form", or "anything": then JSON
            and forms are parsed and the rest stays as it is.
        is_batch: The body is a JSON array of events.
        digest_covers_type: Of senders that send one body for several event types.
    """

    event_type: Sequence[str] = ()
    dedup: Sequence[str] = ()
    ordering_key: Sequence[str] = ()
    content: Literal["json", "json-or-form", "anything"] = "anything"
    is_batch: bool = False
    digest_covers_type: bool = False


ReadEvents = Callable[[WebhookRequest, Proof], tuple[ReceivedEvent, ...]]


def reader(scheme: str, reading: Reading) -> ReadEvents:
    """Make the function that reads the events of a verified request.

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
    """The dedup key of what has no id: the hash of the payload, else of the body or the URL."""
    content = payload or request.body or request.url.encode("utf-8", "surrogatepass")
    prefix = covering.encode() + b"\n" if covering else b""
    return f"sha256:{hashlib.sha256(prefix + content).hexdigest()}"


def dropbox_events(request: WebhookRequest, _proof: Proof) -> tuple[ReceivedEvent, ...]:
    """One event an account: something changed there, and only the account says what.

    Each is an event of its own although two look alike: the next change of the same account
    comes with the very same body.
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
        f"{text!r} says no place; write header:NAME, field:path.to.value, field:one+other, "
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
    """The parsed body, and whether the body itself is that document."""
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
    # GitHub and Slack put JSON into the one field "payload" when asked to send forms.
    if list(fields) == ["payload"]:
        try:
            return orjson.loads(fields["payload"])
        except (orjson.JSONDecodeError, TypeError) as exc:
            raise malformed(scheme, "the field payload is not JSON") from exc
    return fields


def _key(text: str) -> str:
    # A database takes neither NUL nor keys without end; what is odd becomes a hash of itself.
    if len(text) <= _MAX_KEY_LENGTH and text.isprintable():
        return text
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _printable(text: str) -> str:
    return text if text.isprintable() and len(text) <= _MAX_KEY_LENGTH else ""
