"""Text messages through Twilio: short, with the whole link, and never sent twice unnoticed.

Twilio has no idempotency keys. If the response to a message is lost, the account's list of
messages shows whether it was accepted; only if not may it be sent again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from blocks.errors import (
    BadPayloadError,
    IntegrationError,
    MisconfiguredError,
    UnreachableError,
    UpstreamRejectedError,
)
from tasks.core.connectors.http.errors import Where, from_httpx, from_status, never_left

_NUMBER = re.compile(r"\+[1-9]\d{6,14}")
_GSM = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_DOUBLE = frozenset("^{}\\[~]|€\f")
_FAILED = {"failed", "undelivered", "canceled"}
# The other side's clock and ours may differ by this much.
_SKEW = timedelta(minutes=5)
_MAX_PAGES = 50


@dataclass(frozen=True, slots=True)
class TextMessage:
    """A text message to send.

    Attributes:
        to: E.164 number, e.g. "+4915112345678".
        text: At most 1600 characters; each segment is paid for.
    """

    to: str
    text: str


@dataclass(frozen=True, slots=True)
class SentText:
    """A message that Twilio accepted.

    Attributes:
        sid: Twilio's id of the message.
        status: Current status, e.g. "queued"; whether it arrives is known only later.
        found: Whether an earlier attempt had sent it.
    """

    sid: str
    status: str
    found: bool = False


def sms_text(text: str, link: str | None, *, max_segments: int = 1) -> str:
    """Fit text and link into few segments: cut the text, never the link.

    Raises:
        ValueError: The link alone is too long.
    """
    ending = f" {link}" if link else ""
    if segments(ending.strip()) > max_segments:
        raise ValueError(
            f"the link alone takes more than {max_segments} segments; use a shorter address"
        )
    whole = " ".join(text.split())
    if segments(whole + ending) <= max_segments:
        return (whole + ending).strip()
    kept = whole
    while kept and segments(f"{kept.rstrip()}...{ending}") > max_segments:
        kept = kept[:-1]
    return f"{kept.rstrip()}...{ending}" if kept else ending.strip()


def segments(text: str) -> int:
    """Return how many segments the phone network makes of a text.

    Source: 3GPP TS 23.038: 160 septets, or 153 in each of several; without the GSM alphabet 70
    and 67 UTF-16 units.
    """
    if all(char in _GSM or char in _GSM_DOUBLE for char in text):
        length, one, many = sum(1 + (char in _GSM_DOUBLE) for char in text), 160, 153
    else:
        length, one, many = len(text.encode("utf-16-le")) // 2, 70, 67
    return 1 if length <= one else -(-length // many)


def send_sms(
    client: httpx.Client,
    message: TextMessage,
    *,
    sender: str,
    system: str,
    look_since_at: datetime | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> SentText:
    """Hand one message to Twilio.

    Args:
        client: Client whose paths start at the account.
        message: The message.
        sender: The sender's number, messaging service or name.
        system: Name of the account in errors.
        look_since_at: First check whether the same text went to the same number since then: for
            a second attempt, when the first one may have succeeded.
        now: Returns the aware instant.

    Raises:
        MisconfiguredError: The number is invalid, or the credentials are wrong.
        UpstreamRejectedError: Twilio refuses number or text; the message has Twilio's code.
        UpstreamBusyError: Too many messages at once.
        UnreachableError: No response, and the message was certainly not accepted.

    Source: twilio.com/docs/messaging/api/message-resource.
    """
    where = Where(system=system, operation="send SMS", record=None)
    if not _NUMBER.fullmatch(message.to):
        raise MisconfiguredError(
            "the number is none; write it with + and country, e.g. +4915112345678", **where
        )
    if look_since_at and (sent := _find(client, message, look_since_at, where, now)):
        return sent
    started_at = now()
    form = {"To": message.to, "Body": message.text}
    form["MessagingServiceSid" if sender.startswith("MG") else "From"] = sender
    try:
        response = client.post("Messages.json", data=form)
        response.read()
    except httpx.HTTPError as exc:
        error = from_httpx(exc, where)
        if not isinstance(error, UnreachableError) or never_left(exc):
            raise error from exc
        return _seen(client, message, started_at, where, now, error)
    refused = _refused(response, where, now())
    if refused is None:
        return SentText(*_fields(response, where))
    if response.status_code >= 500 and response.status_code != 503:
        return _seen(client, message, started_at, where, now, refused)
    raise refused


def _seen(
    client: httpx.Client,
    message: TextMessage,
    since_at: datetime,
    where: Where,
    now: Callable[[], datetime],
    error: IntegrationError,
) -> SentText:
    """Return the message if it was accepted although its response was lost, else raise."""
    sent = _find(client, message, since_at, where, now)
    if sent is None:
        raise error
    return sent


def _find(
    client: httpx.Client,
    message: TextMessage,
    since_at: datetime,
    where: Where,
    now: Callable[[], datetime],
) -> SentText | None:
    since_at = (since_at - _SKEW).astimezone(UTC)
    filters = {"To": message.to, "DateSent>": f"{since_at:%Y-%m-%d}", "PageSize": "200"}
    url = client.base_url.join("Messages.json").copy_merge_params(filters)
    for _ in range(_MAX_PAGES):
        try:
            response = client.get(url)
        except httpx.HTTPError as exc:
            raise from_httpx(exc, where) from exc
        if error := _refused(response, where, now()):
            raise error
        page = _json(response, where)
        for sent in page.get("messages", []):
            # Trial accounts prefix the text with a line of Twilio's.
            if str(sent.get("body", "")).endswith(message.text) and sent["status"] not in _FAILED:
                return SentText(sent["sid"], sent["status"], found=True)
        following = page.get("next_page_uri")
        if not following:
            break
        # Only path and query are used: the credentials stay with this host.
        url = client.base_url.copy_with(raw_path=httpx.URL(following).raw_path)
    return None


def _refused(response: httpx.Response, where: Where, now: datetime) -> IntegrationError | None:
    error = from_status(response.status_code, response.headers, response.content, where, now=now)
    if isinstance(error, UpstreamRejectedError):
        try:
            code = int(response.json()["code"])
        except (ValueError, TypeError, KeyError):
            return error
        return UpstreamRejectedError(
            f"it refuses number or text with code {code}; see twilio.com/docs/errors/{code}",
            status=response.status_code,
            **where,
        )
    return error


def _fields(response: httpx.Response, where: Where) -> tuple[str, str]:
    answer = _json(response, where)
    return str(answer.get("sid", "")), str(answer.get("status", ""))


def _json(response: httpx.Response, where: Where) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError as exc:
        raise BadPayloadError("the answer is not JSON; check base_url", **where) from exc
    if not isinstance(answer, dict):
        raise BadPayloadError("the answer is no JSON object; check base_url", **where)
    return answer
