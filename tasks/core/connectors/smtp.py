"""Sends e-mail over SMTP, to all recipients or to none, with the same id when repeated."""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime
from pathlib import Path

from blocks.errors import (
    IntegrationError,
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamRejectedError,
)

# Base64 turns 3 bytes into 4 and adds a line end to every 76; headers and text come on top.
_GROWTH = 1.37
_OVERHEAD_BYTES = 20_000
# What people have, in any script; quoted names and address literals are left out on purpose.
_ADDRESS = re.compile(r"(?P<name>[^\s@\"(),:;<>\[\\\]]+)@(?P<domain>\w[\w.-]*)")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file to attach to a message.

    Attributes:
        path: Where it is.
        name: How the recipient sees it.
        media_type: E.g. "text/csv".
    """

    path: Path
    name: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Mail:
    """A message to send.

    Attributes:
        to: Addresses; recipients see each other.
        subject: One line; line breaks become blanks.
        text: The body.
        attachment: Sent if it is small enough.
        link: Where the file is; put into the text when the attachment is too large.
        key: The same for every attempt to send the same message; becomes the Message-ID.
    """

    to: tuple[str, ...]
    subject: str
    text: str
    attachment: Attachment | None = None
    link: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class SentMail:
    """A message that the server accepted.

    Attributes:
        message_id: With its angle brackets, if the mail had a key.
        size: Bytes of the whole message.
        attached: Whether the file was attached, or only its link sent.
    """

    message_id: str | None
    size: int
    attached: bool


def send_mail(
    connect: Callable[[], smtplib.SMTP],
    mail: Mail,
    *,
    sender: str,
    system: str,
    sender_name: str = "",
    max_message_bytes: int = 10_000_000,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> SentMail:
    """Send one message over its own connection.

    It goes to all recipients or to none: the server must accept each one before any content is
    sent. If the connection breaks after the content, it may have arrived; sending it again with
    the same key repeats the Message-ID, by which mail systems drop the second copy.

    Args:
        connect: Returns a connection that is logged in.
        mail: The message.
        sender: The sender's address.
        system: Name of the server in errors.
        sender_name: Shown beside the address.
        max_message_bytes: A larger attachment becomes a link; the server's own limit applies too.
        now: Returns the aware instant of the message's date.

    Raises:
        UpstreamBusyError: The server, or one recipient's mailbox, is busy.
        UnreachableError: No connection, or it was cut.
        UpstreamRejectedError: A recipient or the message is refused.
        MisconfiguredError: An address, the credentials or the certificate are wrong, or the file
            is too large and there is no link.

    Source: RFC 5321 §3.3, §4.5.3; RFC 1870; RFC 5322 §3.6.4; RFC 3834 §5.
    """
    with _errors(system, "connect"):
        client = connect()
    try:
        with _errors(system, "send"):
            attach = _fits(client, mail, max_message_bytes, system)
            message = _compose(mail, sender, sender_name, attach, now(), system)
            content = _hand_in(client, message, mail.to, sender, system)
            with suppress(smtplib.SMTPException, OSError):
                client.quit()
    finally:
        client.close()
    return SentMail(message["Message-ID"], len(content), attach)


def _fits(client: smtplib.SMTP, mail: Mail, max_message_bytes: int, system: str) -> bool:
    if mail.attachment is None:
        return False
    announced = client.esmtp_features.get("size", "")
    limit = max_message_bytes
    if announced.isdecimal() and int(announced) > 0:
        limit = min(limit, int(announced))
    size = mail.attachment.path.stat().st_size
    if size * _GROWTH + len(mail.text) + _OVERHEAD_BYTES <= limit:
        return True
    if mail.link is None:
        raise MisconfiguredError(
            f"the attachment of {size:,} bytes is too large for mail of at most {limit:,}; "
            "deliver it to a folder first, whose link can be sent instead, or zip it",
            system=system,
            operation="send",
            record=mail.attachment.name,
        )
    return False


def _compose(
    mail: Mail, sender: str, sender_name: str, attach: bool, at: datetime, system: str
) -> EmailMessage:
    addresses = [_address(text, system) for text in (sender, *mail.to)]
    international = not all(address.addr_spec.isascii() for address in addresses)
    message = EmailMessage(policy=SMTPUTF8 if international else SMTP)
    message["From"] = Address(_one_line(sender_name), addr_spec=addresses[0].addr_spec)
    message["To"] = addresses[1:]
    message["Subject"] = _one_line(mail.subject)
    message["Date"] = format_datetime(at)
    message["Auto-Submitted"] = "auto-generated"  # keeps out-of-office replies away
    if mail.key:
        message["Message-ID"] = f"<{mail.key}@{addresses[0].domain}>"
    text = mail.text.rstrip()
    if mail.attachment and not attach:
        text += f"\n\n{mail.attachment.name}: {mail.link}"
    message.set_content(text + "\n")
    if mail.attachment and attach:
        main, _, sub = mail.attachment.media_type.partition("/")
        message.add_attachment(
            mail.attachment.path.read_bytes(),
            maintype=main,
            subtype=sub,
            filename=_one_line(mail.attachment.name),
        )
    return message


def _hand_in(
    client: smtplib.SMTP,
    message: EmailMessage,
    recipients: tuple[str, ...],
    sender: str,
    system: str,
) -> bytes:
    content = message.as_bytes()
    options = []
    if client.has_extn("size"):
        options.append(f"SIZE={len(content)}")
    if message.policy is SMTPUTF8:
        if not client.has_extn("smtputf8"):
            raise MisconfiguredError(
                "an address is not in ASCII and the server lacks SMTPUTF8; use another address",
                system=system,
                operation="send",
            )
        options += ["SMTPUTF8", "BODY=8BITMIME"]
        client.command_encoding = "utf-8"
    code, answer = client.mail(sender, options)
    if code != 250:
        raise smtplib.SMTPSenderRefused(code, answer, sender)
    refused = {
        recipient: reply
        for recipient in recipients
        if (reply := client.rcpt(recipient))[0] not in (250, 251)
    }
    if refused:
        client.rset()
        raise smtplib.SMTPRecipientsRefused(refused)
    code, answer = client.data(content)
    if code != 250:
        raise smtplib.SMTPDataError(code, answer)
    return content


@contextmanager
def _errors(system: str, operation: str) -> Iterator[None]:
    try:
        yield
    except (smtplib.SMTPException, OSError) as exc:
        raise _mapped(exc, system, operation) from exc


def _mapped(exc: Exception, system: str, operation: str) -> IntegrationError:
    if isinstance(exc, smtplib.SMTPRecipientsRefused):
        who = ", ".join(sorted(exc.recipients))
        codes = [code for code, _ in exc.recipients.values()]
        return _answered(max(codes), f"recipients ({who}), so nobody got it", system, operation)
    if isinstance(exc, smtplib.SMTPAuthenticationError) and exc.smtp_code >= 500:
        return MisconfiguredError(
            f"the server refuses the login ({exc.smtp_code}); fix user and password in the block",
            system=system,
            operation=operation,
        )
    if isinstance(exc, smtplib.SMTPResponseException):
        return _answered(exc.smtp_code, "the message", system, operation)
    if isinstance(exc, smtplib.SMTPNotSupportedError):
        return MisconfiguredError(
            "the server lacks what the block asks for (STARTTLS or login); check port and security",
            system=system,
            operation=operation,
        )
    if isinstance(exc, ssl.SSLCertVerificationError):
        return MisconfiguredError(
            "the server's certificate is not trusted; give the authority's certificate as ca_file",
            system=system,
            operation=operation,
        )
    if isinstance(exc, ssl.SSLError) and exc.reason == "WRONG_VERSION_NUMBER":
        return MisconfiguredError(
            "the server does not speak TLS on this port; use starttls, or the port for TLS",
            system=system,
            operation=operation,
        )
    if isinstance(exc, smtplib.SMTPServerDisconnected | OSError):
        return UnreachableError(
            "no connection, or it was cut; is the server up, and are host and port right?",
            system=system,
            operation=operation,
        )
    return PermanentError(
        f"sending failed ({type(exc).__name__})", system=system, operation=operation
    )


def _answered(code: int, what: str, system: str, operation: str) -> IntegrationError:
    if 400 <= code < 500:
        return UpstreamBusyError(
            f"it does not take {what} just now ({code})", system=system, operation=operation
        )
    return UpstreamRejectedError(
        f"it refuses {what} ({code}); correct it, or ask the server's operator",
        system=system,
        operation=operation,
        status=code,
    )


def _address(text: str, system: str) -> Address:
    found = _ADDRESS.fullmatch(text)
    if not found or not text.isprintable():
        raise MisconfiguredError(
            "an address is invalid; write it as name@example.org",
            system=system,
            operation="send",
            record=text,
        )
    return Address(username=found["name"], domain=found["domain"])


def _one_line(text: str) -> str:
    """Remove line breaks and control characters, which could start another header."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
