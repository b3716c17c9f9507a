"""What goes into a verification and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from blocks.errors import BadPayloadError, MisconfiguredError, SignatureInvalidError


@dataclass(slots=True)
class WebhookRequest:
    """One request as it arrived.

    Attributes:
        method: In capitals.
        url: The public URL the sender used, with its query: some senders sign it.
        headers: Names in lower case.
        body: The raw bytes, before any parsing.
        now: Aware instant that time stamps are compared with.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    now: datetime


@dataclass(slots=True)
class Proof:
    """What an authenticator found out.

    Attributes:
        signed_id: The sender's id of this delivery, if the signature covers one in a header.
        document: What had to be parsed on the way, so that nobody parses it twice.
    """

    signed_id: str | None = None
    document: Any = None


Authenticate = Callable[[WebhookRequest], Proof]
"""Returns a proof or raises `SignatureInvalidError`."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A 200 that a sender requires, and what it wants to read there."""

    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Handshake:
    """A request that is no delivery: the sender asks whether this endpoint is meant.

    Attributes:
        answer: What to answer.
        confirm_url: What to GET before answering, of senders that want that.
    """

    answer: Acknowledgement
    confirm_url: str | None = None


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """One event of a request.

    Attributes:
        event_type: As the sender names it; "" if it does not say.
        dedup_key: The same for the same event sent again, another for any other event.
        ordering_key: Events that share it want to be handled one after the other.
        payload: The event as JSON; None when the body is the event.
        is_notice: True when it is about the subscription and no flow waits for it.
    """

    event_type: str
    dedup_key: str
    ordering_key: str | None = None
    payload: bytes | None = None
    is_notice: bool = False


@dataclass(slots=True)
class VerifiedRequest:
    """A request whose sender is who it claims to be.

    Attributes:
        scheme: The scheme it was verified with.
        signed_id: The sender's id of the delivery, if the signature covers it in a header.
        handshake: Set when the request is one; it then carries no events.
        answer: What the sender wants to hear once the events are stored; None for any 2xx.
        body: The body to keep: as received, less secrets that a sender puts there.
        read_events: Parses the body into its events, none for a handshake; raises
            `BadPayloadError` when it is not what this sender sends.
    """

    scheme: str
    signed_id: str | None
    handshake: Handshake | None
    answer: Acknowledgement | None
    body: bytes
    read_events: Callable[[], tuple[ReceivedEvent, ...]]


def unauthentic(scheme: str, reason: str) -> SignatureInvalidError:
    """The error for a sender that could not be authenticated."""
    return SignatureInvalidError(reason, system=f"webhook {scheme}", operation="verify")


def malformed(scheme: str, reason: str) -> BadPayloadError:
    """The error for an authentic request that breaks its contract."""
    return BadPayloadError(reason, system=f"webhook {scheme}", operation="read events")


def as_payload(scheme: str, content: Any) -> bytes:
    """One event as JSON.

    Raises:
        BadPayloadError: It is nested deeper than can be written, though it could be read.
    """
    try:
        return orjson.dumps(content)
    except orjson.JSONEncodeError as exc:
        raise malformed(scheme, "the JSON is nested too deeply") from exc


def misconfigured(scheme: str, reason: str) -> MisconfiguredError:
    """The error for secrets or options with which nothing can be verified."""
    return MisconfiguredError(reason, system=f"webhook {scheme}", operation="configure")
