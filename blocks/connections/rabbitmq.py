"""Connection settings of a RabbitMQ broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, SecretStr

from blocks.connections.network import TlsSettings, not_installed

if TYPE_CHECKING:
    from aio_pika.abc import AbstractConnection


class RabbitMqConnection(TlsSettings):
    """A virtual host on a RabbitMQ broker."""

    host: str = Field(description="Name or address of the broker.", min_length=1)
    port: int = Field(default=5671, ge=1, le=65535, description="Port; 5671 is for TLS.")
    virtual_host: str = Field(default="/", description="The virtual host.")
    username: str = Field(description="The user.")
    password: SecretStr = Field(description="The password.")
    connect_timeout_s: float = Field(
        default=10.0, gt=0, description="Seconds to wait for a connection."
    )
    heartbeat_s: int = Field(
        default=30, ge=1, description="Seconds of silence after which the connection is dead."
    )

    @property
    def system(self) -> str:
        """Name of this broker in errors, e.g. "amqp://rabbit.example/orders"."""
        return f"amqp://{self.host}:{self.port}/{self.virtual_host.strip('/')}".rstrip("/")

    async def get_client(self) -> AbstractConnection:
        """Connect; the connection does not reconnect by itself.

        Raises:
            MisconfiguredError: The client library is not installed, or a file cannot be read.
            aio_pika.exceptions.AMQPError: The broker refused.
            OSError: No connection; `TimeoutError` if not in time.
        """
        try:
            import aio_pika
        except ImportError as exc:
            raise not_installed("aio-pika", extra="rabbitmq", system=self.system) from exc
        return await aio_pika.connect(
            host=self.host,
            port=self.port,
            login=self.username,
            password=self.password.get_secret_value(),
            virtualhost=self.virtual_host,
            ssl=self.tls,
            ssl_context=self.tls_context(self.system),
            timeout=self.connect_timeout_s,
            heartbeat=self.heartbeat_s,
        )
