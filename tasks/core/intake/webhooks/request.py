"""The inputs and results of a verification."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from blocks.errors import BadPayloadError, MisconfiguredError, SignatureInvalidError


@dataclass(slots=True)
class WebhookRequest:
    """A request as received.

    Attributes:
        method: In capitals.
        url: The public URL the sender used, with its query, because some senders sign it.
        headers: Names in lower case.
        body: The raw bytes, before any parsing.
        now: Aware instant that timestamps are compared with.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    now: datetime


@dataclass(slots=True)
class Proof:
    """The result of an authentication.

    Attributes:
        signed_id: The sender's id of this delivery, if the signature covers one in a header.
        document: The body if it had to be parsed, so that it is not parsed twice.
    """

    signed_id: str | None = None
    document: Any = None


Authenticate = Callable[[WebhookRequest], Proof]
"""Returns a proof or raises `SignatureInvalidError`."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A 200 response whose body the sender requires."""

    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Handshake:
    """A request that verifies the endpoint instead of delivering events.

    Attributes:
        acknowledgement: The response to send.
        confirm_url: URL to GET before responding, if the sender requires it.
    """

    acknowledgement: Acknowledgement
    confirm_url: str | None = None


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """One event of a request.

    Attributes:
        event_type: As the sender names it; "" if it does not say.
        dedup_key: The same when the event is sent again, different for any other event.
        ordering_key: Events that share it are handled one after the other.
        payload: The event as JSON; None if the body is the event.
        is_notice: Whether it is about the subscription and not meant for a flow.
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
        handshake: Set if the request is a handshake, which carries no events.
        acknowledgement: The response the sender requires once events are stored; None for any 2xx.
        body: The body to store: as received, without secrets that the sender puts there.
        read_events: Parses the body into its events, none for a handshake; raises
            `BadPayloadError` if it breaks this sender's contract.
    """

    scheme: str
    signed_id: str | None
    handshake: Handshake | None
    acknowledgement: Acknowledgement | None
    body: bytes
    read_events: Callable[[], tuple[ReceivedEvent, ...]]


def unauthentic(scheme: str, reason: str) -> SignatureInvalidError:
    """Return the error for a sender that could not be authenticated."""
    return SignatureInvalidError(reason, system=f"webhook {scheme}", operation="verify")


def malformed(scheme: str, reason: str) -> BadPayloadError:
    """Return the error for an authentic request that breaks its contract."""
    return BadPayloadError(reason, system=f"webhook {scheme}", operation="read events")


def as_payload(scheme: str, content: Any) -> bytes:
    """Return one event as JSON.

    Raises:
        BadPayloadError: It is nested too deeply to be written.
    """
    try:
        return orjson.dumps(content)
    except orjson.JSONEncodeError as exc:
        raise malformed(scheme, "the JSON is nested too deeply") from exc


def misconfigured(scheme: str, reason: str) -> MisconfiguredError:
    """Return the error for unusable secrets or options."""
    return MisconfiguredError(reason, system=f"webhook {scheme}", operation="configure")
