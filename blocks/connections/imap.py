"""Connection settings of an IMAP mailbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, SecretStr

from blocks.connections.network import TlsSettings, not_installed

if TYPE_CHECKING:
    from imap_tools import BaseMailBox


class ImapConnection(TlsSettings):
    """A mailbox on an IMAP server."""

    host: str = Field(description="Name or address of the IMAP server.", min_length=1)
    port: int = Field(default=993, ge=1, le=65535, description="Port; 993 is for TLS.")
    username: str = Field(description="The login, often the mail address.", min_length=1)
    password: SecretStr | None = Field(default=None, description="The password.")
    oauth2_token: SecretStr | None = Field(
        default=None, description="An access token instead of a password (XOAUTH2)."
    )
    timeout_s: float = Field(
        default=30.0, gt=0, description="Seconds of silence before the connection is dropped."
    )

    @property
    def system(self) -> str:
        """Name of this mailbox in errors, e.g. "imap://orders@mail.example"."""
        return f"imap://{self.username}@{self.host}"

    def get_client(self) -> BaseMailBox:
        """Connect and log in; blocks.

        Raises:
            MisconfiguredError: The client library is not installed, or a file cannot be read.
            imap_tools.MailboxLoginError: The login was refused.
            OSError: No connection.
        """
        try:
            from imap_tools import MailBox, MailBoxUnencrypted
        except ImportError as exc:
            raise not_installed("imap-tools", extra="mail", system=self.system) from exc
        context = self.tls_context(self.system)
        if context is None:
            mailbox: BaseMailBox = MailBoxUnencrypted(self.host, self.port, self.timeout_s)
        else:
            mailbox = MailBox(self.host, self.port, self.timeout_s, ssl_context=context)
        try:
            if self.oauth2_token is not None:
                token = self.oauth2_token.get_secret_value()
                mailbox.xoauth2(self.username, token, initial_folder=None)
            else:
                password = self.password.get_secret_value() if self.password else ""
                mailbox.login(self.username, password, initial_folder=None)
        except BaseException:
            mailbox.client.shutdown()
            raise
        return mailbox
