"""A mail server on the loopback: speaks SMTP with TLS and login, and keeps what it is given."""

from __future__ import annotations

import asyncio
import hmac
import logging
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from aiosmtpd.smtp import SMTP, AuthResult

from sandbox.systems.certificate import loopback_certificate, server_tls
from sandbox.systems.stand_in import StandIn
from tasks.core.connectors.folders.background_loop import BackgroundLoop

if TYPE_CHECKING:
    from blocks.mail_server import MailServer

_HOST = "127.0.0.1"


class Received(NamedTuple):
    """One message as it was handed in.

    Attributes:
        sender: Of the envelope.
        recipients: Of the envelope.
        message: Parsed.
    """

    sender: str
    recipients: tuple[str, ...]
    message: EmailMessage


@dataclass
class MailFaults:
    """What goes wrong until it is set back.

    Attributes:
        recipients: Address to the answer it gets, e.g. {"a@b.c": "550 no such user"}.
        on_data: The answer to a message instead of taking it, e.g. "451 try later".
        cut: The connection is cut when the content has come: before it is kept, or after.
    """

    recipients: dict[str, str] = field(default_factory=dict)
    on_data: str | None = None
    cut: Literal["before", "after"] | None = None


@dataclass
class MailSandbox(StandIn):
    """A running server.

    Attributes:
        folder: Messages are kept here too, as files that mail programs open.
        port: Of 127.0.0.1.
        username: May log in with `password`.
        ca_file: By which clients trust it.
        messages: What came, oldest first.
    """

    folder: Path
    port: int
    username: str
    password: str
    ca_file: Path
    faults: MailFaults
    messages: list[Received]
    _loop: BackgroundLoop
    _server: asyncio.Server

    @property
    def host(self) -> str:
        """The loopback."""
        return _HOST

    def block(self, **fields: Any) -> MailServer:
        """The block for it; `fields` go before what would be right."""
        from blocks.mail_server import MailServer

        right = {
            "host": self.host,
            "port": self.port,
            "username": self.username,
            "password": self.password,
            "sender": "reports@example.org",
            "sender_name": "Reports",
            "ca_file": self.ca_file,
        }
        return MailServer(**{**right, **fields})

    def stop(self) -> None:
        """Stop listening."""
        self._loop.run(self._unlisten())
        self._loop.close()

    async def _unlisten(self) -> None:
        self._server.close()


def start(
    data_dir: Path,
    *,
    port: int = 0,
    security: Literal["starttls", "tls", "none"] = "starttls",
    username: str = "reports",
    password: str = "sandbox",  # noqa: S107  # a stand-in's, not a secret
    max_message_bytes: int = 20_000_000,
) -> MailSandbox:
    """Take mail and keep it in `data_dir`/messages.

    Args:
        data_dir: Made if it is missing.
        port: 0 for a free one.
        security: As clients have to use it; with "none" nobody logs in.
        username: Who may log in.
        password: With which.
        max_message_bytes: Announced and enforced.
    """
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    folder = data_dir / "messages"
    folder.mkdir(parents=True, exist_ok=True)
    faults, messages = MailFaults(), list[Received]()
    tls = server_tls(data_dir)

    def authenticate(_server: Any, _session: Any, _envelope: Any, _how: str, data: Any) -> Any:
        right = hmac.compare_digest(data.password, password.encode())
        right = right and data.login == username.encode()
        return AuthResult(success=right, handled=False)  # the library answers

    options: dict[str, Any] = {
        "data_size_limit": max_message_bytes,
        "enable_SMTPUTF8": True,
        "hostname": "sandbox",
        "timeout": 30,
    }
    if security == "starttls":
        options |= {"tls_context": tls, "require_starttls": True}
        options |= {"authenticator": authenticate, "auth_required": True}
    if security == "tls":
        # The library does not see that the connection is encrypted: it lets users log in, and
        # others in too.
        options |= {"authenticator": authenticate, "auth_require_tls": False}
    loop = BackgroundLoop("mail-sandbox")
    handler = _Handler(folder, faults, messages)
    server = loop.run(_listen(handler, options, port, tls if security == "tls" else None))
    return MailSandbox(
        folder=folder,
        port=server.sockets[0].getsockname()[1],
        username=username,
        password=password,
        ca_file=loopback_certificate(data_dir)[0],
        faults=faults,
        messages=messages,
        _loop=loop,
        _server=server,
    )


class _Handler:
    """Decides on recipients and keeps messages; the method names are aiosmtpd's."""

    def __init__(self, folder: Path, faults: MailFaults, messages: list[Received]) -> None:
        self._folder = folder
        self._faults = faults
        self._messages = messages

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        """Take a recipient, or give the answer that was asked for."""
        answer = self._faults.recipients.get(address)
        if answer:
            return answer
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        """Keep a message, or do what was asked for."""
        if self._faults.on_data:
            return self._faults.on_data
        if self._faults.cut == "before":
            server.transport.abort()
            return "451 gone"
        message = message_from_bytes(envelope.content, policy=policy.default)
        number = len(self._messages) + 1
        (self._folder / f"{number:05}.eml").write_bytes(envelope.content)
        self._messages.append(Received(envelope.mail_from, tuple(envelope.rcpt_tos), message))
        if self._faults.cut == "after":
            server.transport.abort()
        return f"250 kept as {number}"


async def _listen(
    handler: _Handler, options: dict[str, Any], port: int, tls: Any
) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    return await loop.create_server(
        lambda: SMTP(handler, loop=loop, **options), _HOST, port, ssl=tls
    )
