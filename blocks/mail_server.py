"""An SMTP server, its login, and how large a message may be."""

from __future__ import annotations

import smtplib
import ssl
from pathlib import Path
from typing import Literal, Self

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, model_validator

from blocks.errors import MisconfiguredError


class MailServer(Block):
    """An SMTP server that takes our mail, and the sender's address.

    The connection is encrypted and the server's certificate is checked, unless `security` is
    none.

    Example:
        Send a report:
        ```python
        from blocks.mail_server import MailServer
        from tasks.core.connectors.smtp import Mail, send_mail

        server = MailServer.load("BLOCK_NAME")
        mail = Mail(to=("boss@example.org",), subject="Sales", text="See the attachment.")
        send_mail(server.get_client, mail, sender=server.sender, system=server.system)
        ```
    """

    _block_type_name = "Mail Server"
    _block_type_slug = "mail-server"
    _description = "An SMTP server that takes our mail, and the sender's address."

    model_config = ConfigDict(hide_input_in_errors=True)

    host: str = Field(description="Name or address of the server, without a port.", min_length=1)
    port: int = Field(default=587, ge=1, le=65535, description="Port: 587 STARTTLS, 465 TLS.")
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls",
        description=(
            "How the connection is encrypted. WARNING: with none, anyone on the network path can "
            "read the mail, and no password is allowed."
        ),
    )
    username: str | None = Field(default=None, description="User to log in as, if needed.")
    password: SecretStr | None = Field(default=None, description="Password of the user.")
    sender: str = Field(description="Sender's address, e.g. reports@example.org.", min_length=3)
    sender_name: str = Field(default="", description="Name shown beside the address.")
    max_message_bytes: int = Field(
        default=10_000_000,
        ge=10_000,
        description=(
            "Largest message to send; a larger attachment is sent as a link. The server's own "
            "limit applies too."
        ),
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the certificate authorities to trust instead of the system's.",
    )
    timeout_s: float = Field(
        default=60, gt=0, description="Seconds of silence before the connection times out."
    )

    @model_validator(mode="after")
    def _password_is_safe(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("give both user and password, or neither")
        if self.password is not None and self.security == "none":
            raise ValueError("a password needs an encrypted connection: use starttls or tls")
        return self

    @property
    def system(self) -> str:
        """Name of this server in errors, e.g. "smtp://mail.example.org:587"."""
        return f"smtp://{self.host}:{self.port}"

    def get_client(self) -> smtplib.SMTP:
        """Connect, encrypt and log in.

        Raises:
            MisconfiguredError: `ca_file` cannot be read.
            smtplib.SMTPException: The server refused.
            OSError: No connection, not in time, or the certificate is not trusted.
        """
        if self.security == "tls":
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                self.host, self.port, timeout=self.timeout_s, context=self._trusted()
            )
        else:
            client = smtplib.SMTP(self.host, self.port, timeout=self.timeout_s)
        try:
            if self.security == "starttls":
                client.starttls(context=self._trusted())
            client.ehlo_or_helo_if_needed()
            if self.username is not None and self.password is not None:
                client.login(self.username, self.password.get_secret_value())
        except BaseException:
            client.close()
            raise
        return client

    def _trusted(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as exc:
            raise MisconfiguredError(
                f"ca_file {str(self.ca_file)!r} cannot be read as PEM certificates",
                system=self.system,
                operation="connect",
            ) from exc
