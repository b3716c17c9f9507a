"""Reads a received mail: its sender, text and attachments; no link in it is followed."""

from __future__ import annotations

import email.policy
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage, Message
from email.parser import BytesParser
from email.utils import getaddresses
from typing import Any

import orjson

from blocks.errors import BadPayloadError

_MAX_ATTACHMENTS = 100
_MAX_NAME = 120
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|]")


@dataclass(frozen=True, slots=True)
class Attachment:
    """One attached file.

    Attributes:
        name: A bare file name, safe to write to; generated if the mail has none.
        content_type: As the mail declares it.
        content: The bytes, decoded from their transfer encoding.
    """

    name: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class ReceivedMail:
    """One mail.

    Attributes:
        message_id: As set by the sender; forgeable.
        sender: The only address in From, in lower case; "" if there are none or several. Anybody
            can forge it, so require `is_authenticated` where it matters.
        recipients: The addresses in To and Cc.
        subject: Decoded.
        sent_at: Aware UTC instant, if the mail has a readable date.
        text: The plain text part; "" if there is none.
        attachments: The attached files; attached mails are files named *.eml.
    """

    message_id: str
    sender: str
    recipients: tuple[str, ...]
    subject: str
    sent_at: datetime | None
    text: str
    attachments: tuple[Attachment, ...]

    def as_json(self) -> bytes:
        """Return everything except the attachments' bytes; they are listed with size and digest."""
        document: dict[str, Any] = {
            "message_id": self.message_id,
            "from": self.sender,
            "to": self.recipients,
            "subject": self.subject,
            "sent_at": self.sent_at,
            "text": self.text,
            "attachments": [
                {
                    "name": each.name,
                    "content_type": each.content_type,
                    "size": len(each.content),
                    "sha256": hashlib.sha256(each.content).hexdigest(),
                }
                for each in self.attachments
            ],
        }
        return orjson.dumps(document)


def read_mail(raw: bytes) -> ReceivedMail:
    """Read a mail.

    Raises:
        BadPayloadError: It is too deeply nested, has too many attachments, or is not a mail.

    Source: RFC 5322, RFC 2045 to 2049, RFC 2183.
    """
    try:
        message = _parsed(raw)
        return ReceivedMail(
            message_id=_header(message, "message-id"),
            sender=sender_of(raw),
            recipients=tuple(_addresses(message, "to") + _addresses(message, "cc")),
            subject=_header(message, "subject"),
            sent_at=_date(message),
            text=_body_text(message),
            attachments=tuple(_attachments(message)),
        )
    except (RecursionError, ValueError, LookupError, AttributeError, TypeError) as exc:
        # the standard library has no error class for mails it cannot parse
        raise BadPayloadError(
            f"it cannot be read as a mail ({type(exc).__name__})",
            system="e-mail",
            operation="read mail",
        ) from exc


def sender_of(raw: bytes) -> str:
    """Return the only address in From, in lower case; "" if there are none or several."""
    try:
        message = BytesParser(policy=email.policy.default).parsebytes(raw, headersonly=True)
        if len(message.get_all("from", [])) != 1:
            return ""
        found = _addresses(message, "from")
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return ""
    return found[0] if len(found) == 1 else ""


def is_authenticated(raw: bytes, authserv_id: str) -> bool:
    """Return whether our own server reports that the mail passed DMARC.

    Only the topmost Authentication-Results counts: the receiving server adds it; any below it
    came with the mail.

    Args:
        raw: The mail, or just its headers.
        authserv_id: That server's name in the header.

    Source: RFC 8601, RFC 7489.
    """
    message = BytesParser(policy=email.policy.compat32).parsebytes(raw, headersonly=True)
    results = str(message.get("authentication-results", ""))
    name, _, verdicts = results.partition(";")
    words = name.split()
    if not words or words[0].lower() != authserv_id.lower():
        return False
    without_comments = re.sub(r"\([^()]*\)", "", verdicts)
    return any(
        re.match(r"\s*dmarc\s*=\s*pass\b", part, re.IGNORECASE)
        for part in without_comments.split(";")
    )


def _parsed(raw: bytes) -> EmailMessage:
    message = BytesParser(policy=email.policy.default).parsebytes(raw)
    assert isinstance(message, EmailMessage)  # noqa: S101 - the policy's class
    return message


def _body_text(message: EmailMessage) -> str:
    part = message.get_body(preferencelist=("plain",))
    return "" if part is None else _content_text(part)


def _content_text(part: Message) -> str:
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        return ""
    charset = part.get_content_charset() or "utf-8"
    try:
        return content.decode(charset, "replace")
    except LookupError:  # no such charset
        return content.decode("utf-8", "replace")


def _attachments(message: EmailMessage) -> Iterator[Attachment]:
    count = 0
    for part in message.walk():
        if part.is_multipart() and part.get_content_type() != "message/rfc822":
            continue
        if not part.is_attachment() and part.get_filename() is None:
            continue
        count += 1
        if count > _MAX_ATTACHMENTS:
            raise ValueError("too many attachments")
        if part.get_content_type() == "message/rfc822":
            content = _attached_mail(part)
        else:
            payload = part.get_payload(decode=True)
            content = payload if isinstance(payload, bytes) else b""
        extension = ".eml" if part.get_content_type() == "message/rfc822" else ""
        name = _safe_name(part.get_filename() or "", default=f"attachment-{count}{extension}")
        yield Attachment(name, part.get_content_type(), content)


def _attached_mail(part: Message) -> bytes:
    attached = part.get_payload()
    if not (isinstance(attached, list) and isinstance(attached[0], Message)):
        raise TypeError("an attached mail is none")
    return attached[0].as_bytes()


def _safe_name(name: str, *, default: str) -> str:
    bare = _UNSAFE.sub("_", re.split(r"[/\\]", name)[-1]).strip(" .")
    return bare[-_MAX_NAME:].lstrip(" .") or default


def _header(message: EmailMessage, name: str) -> str:
    return str(message.get(name, "")).strip()


def _addresses(message: Any, name: str) -> list[str]:
    pairs = getaddresses([str(each) for each in message.get_all(name, [])])
    return [address.lower() for _, address in pairs if "@" in address]


def _date(message: EmailMessage) -> datetime | None:
    date = message.get("date")
    found: datetime | None = getattr(date, "datetime", None)
    if found is None:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
