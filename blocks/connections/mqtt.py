"""Connection settings of an MQTT broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, SecretStr

from blocks.connections.network import TlsSettings, not_installed

if TYPE_CHECKING:
    from paho.mqtt.client import Client


class MqttConnection(TlsSettings):
    """An MQTT 5 broker."""

    host: str = Field(description="Name or address of the broker.", min_length=1)
    port: int = Field(default=8883, ge=1, le=65535, description="Port; 8883 is for TLS.")
    username: str | None = Field(default=None, description="The user.")
    password: SecretStr | None = Field(default=None, description="The password.")
    connect_timeout_s: float = Field(
        default=10.0, gt=0, description="Seconds to wait for a connection."
    )
    keepalive_s: int = Field(
        default=30, ge=1, description="Seconds of silence after which the connection is dead."
    )

    @property
    def system(self) -> str:
        """Name of this broker in errors, e.g. "mqtt://broker.example:8883"."""
        return f"mqtt://{self.host}:{self.port}"

    def get_client(self, client_id: str) -> Client:
        """Return an unconnected client that neither acknowledges nor reconnects by itself.

        Args:
            client_id: Name under which the broker stores the session.

        Raises:
            MisconfiguredError: The client library is not installed, or a file cannot be read.
        """
        try:
            from paho.mqtt.client import Client, MQTTv5
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as exc:
            raise not_installed("paho-mqtt", extra="mqtt", system=self.system) from exc
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = self.connect_timeout_s
        context = self.tls_context(self.system)
        if context is not None:
            client.tls_set_context(context)
        if self.username is not None:
            client.username_pw_set(
                self.username, self.password.get_secret_value() if self.password else None
            )
        return client
