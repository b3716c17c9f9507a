"""Connection settings of a Kafka cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from blocks.connections.network import not_installed


class KafkaConnection(BaseModel):
    """A Kafka cluster: its brokers, TLS and SASL."""

    model_config = ConfigDict(hide_input_in_errors=True)

    bootstrap_servers: str = Field(
        description="Some of the brokers, as host:port,host:port.", min_length=3
    )
    security: Literal["ssl", "sasl_ssl", "plaintext", "sasl_plaintext"] = Field(
        default="ssl",
        description=(
            "TLS (ssl), with a login (sasl). WARNING: without ssl, anyone on the network path can "
            "read everything."
        ),
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="SASL mechanism of the login."
    )
    username: str | None = Field(default=None, description="The user, for sasl.")
    password: SecretStr | None = Field(default=None, description="The password, for sasl.")
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the certificate authorities to trust instead of the machine's.",
    )
    certificate_file: Path | None = Field(
        default=None, description="PEM file with our client certificate."
    )
    key_file: Path | None = Field(
        default=None, description="PEM file with the private key of that certificate."
    )
    properties: dict[str, str] = Field(
        default_factory=dict,
        description="Extra librdkafka settings, e.g. client.rack; no secrets.",
    )

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:
        if self.security.startswith("sasl") and not (self.username and self.password):
            raise ValueError("sasl needs username and password")
        return self

    @property
    def system(self) -> str:
        """Name of this cluster in errors, e.g. "kafka://broker-1.example:9093"."""
        return f"kafka://{self.bootstrap_servers.partition(',')[0]}"

    def client_config(self) -> dict[str, Any]:
        """Return the settings under librdkafka's names.

        Source: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md
        """
        config: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security,
            "client.id": "integrations",
        }
        if self.security.startswith("sasl") and self.password:
            config |= {
                "sasl.mechanism": self.sasl_mechanism,
                "sasl.username": self.username,
                "sasl.password": self.password.get_secret_value(),
            }
        files = {
            "ssl.ca.location": self.ca_file,
            "ssl.certificate.location": self.certificate_file,
            "ssl.key.location": self.key_file,
        }
        config |= {name: str(file) for name, file in files.items() if file is not None}
        return config | self.properties

    def get_producer(self) -> Any:
        """Return a `confluent_kafka.Producer` that resends, in order, what was not confirmed.

        Raises:
            MisconfiguredError: The client library is not installed.
        """
        try:
            from confluent_kafka import Producer
        except ImportError as exc:
            raise not_installed("confluent-kafka", extra="kafka", system=self.system) from exc
        return Producer(self.client_config() | {"enable.idempotence": True})
