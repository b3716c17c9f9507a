"""Connection settings of a Redis server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr

from blocks.connections.network import TlsSettings, not_installed

if TYPE_CHECKING:
    from redis.asyncio import Redis


class RedisConnection(TlsSettings):
    """A database on a Redis server."""

    host: str = Field(description="Name or address of the server.", min_length=1)
    port: int = Field(default=6379, ge=1, le=65535, description="Port.")
    database: int = Field(default=0, ge=0, description="Number of the database.")
    username: str | None = Field(default=None, description="The user, where there are several.")
    password: SecretStr | None = Field(default=None, description="The password.")
    connect_timeout_s: float = Field(
        default=10.0, gt=0, description="Seconds to wait for a connection."
    )
    read_timeout_s: float = Field(
        default=30.0, gt=10, description="Seconds of silence before a command times out."
    )

    @property
    def system(self) -> str:
        """Name of this server in errors, e.g. "redis://cache.example:6379/0"."""
        return f"redis://{self.host}:{self.port}/{self.database}"

    def get_client(self) -> Redis:
        """Return a client that connects at its first command.

        Raises:
            MisconfiguredError: The client library is not installed, or a file cannot be read.
        """
        try:
            from redis.asyncio import Redis, SSLConnection
            from redis.asyncio.connection import ConnectionPool
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as exc:
            raise not_installed("redis", extra="redis", system=self.system) from exc
        options: dict[str, Any] = {}
        if self.tls:
            context = self.tls_context(self.system)
            assert context is not None  # noqa: S101 - tls is on
            options["connection_class"] = SSLConnection
            options |= {
                "ssl_ca_certs": str(self.ca_file) if self.ca_file else None,
                "ssl_certfile": str(self.certificate_file) if self.certificate_file else None,
                "ssl_keyfile": str(self.key_file) if self.key_file else None,
                "ssl_check_hostname": True,
            }
        pool = ConnectionPool(
            host=self.host,
            port=self.port,
            db=self.database,
            username=self.username,
            password=self.password.get_secret_value() if self.password else None,
            socket_connect_timeout=self.connect_timeout_s,
            socket_timeout=self.read_timeout_s,
            retry=Retry(NoBackoff(), 0),  # the callers retry
            **options,
        )
        return Redis.from_pool(pool)  # the client closes the pool too
