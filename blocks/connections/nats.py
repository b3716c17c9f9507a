"""Connection settings of a NATS server."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr

from blocks.connections.network import TlsSettings, not_installed

if TYPE_CHECKING:
    from nats.aio.client import Client


_CLOSE_TIMEOUT_S = 2.0


class NatsConnection(TlsSettings):
    """A NATS server or cluster with JetStream."""

    host: str = Field(description="Name or address of the server.", min_length=1)
    port: int = Field(default=4222, ge=1, le=65535, description="Port.")
    username: str | None = Field(default=None, description="The user, for logins by password.")
    password: SecretStr | None = Field(default=None, description="The password.")
    token: SecretStr | None = Field(default=None, description="A token instead of a login.")
    credentials_file: Path | None = Field(
        default=None, description="A .creds file instead of a login (JWT and NKey)."
    )
    connect_timeout_s: int = Field(default=5, ge=1, description="Seconds to wait for a connection.")
    ping_interval_s: int = Field(
        default=10, ge=1, description="Seconds between pings; two unanswered end the connection."
    )

    @property
    def system(self) -> str:
        """Name of this server in errors, e.g. "nats://nats.example:4222"."""
        return f"nats://{self.host}:{self.port}"

    async def get_client(self) -> Client:
        """Connect; the connection does not reconnect by itself.

        Raises:
            MisconfiguredError: The client library is not installed, or a file cannot be read.
            nats.errors.Error: The server refused, or does not respond.
            OSError: No connection.
        """
        try:
            from nats.aio.client import Client
        except ImportError as exc:
            raise not_installed("nats-py", extra="nats", system=self.system) from exc
        options: dict[str, Any] = {}
        if self.username is not None:
            options["user"] = self.username
            options["password"] = self.password.get_secret_value() if self.password else ""
        if self.token is not None:
            options["token"] = self.token.get_secret_value()
        if self.credentials_file is not None:
            options["user_credentials"] = str(self.credentials_file)
        client = Client()
        connecting = client.connect(
            self.system.replace("nats://", "tls://") if self.tls else self.system,
            tls=self.tls_context(self.system),
            connect_timeout=self.connect_timeout_s,
            ping_interval=self.ping_interval_s,
            max_outstanding_pings=2,
            allow_reconnect=False,
            error_cb=_said_elsewhere,
            **options,
        )
        try:
            # the library retries a server that refuses connections for two minutes
            async with asyncio.timeout(self.connect_timeout_s):
                await connecting
        except BaseException:
            # it also leaves the connection open when the server breaks the protocol
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await client.close()
            raise
        return client


async def _said_elsewhere(_error: Exception) -> None:
    """Ignore errors: the failing call raises; the library's default also logs a traceback."""
