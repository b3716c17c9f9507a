"""Connection settings of an Amazon SQS queue."""

from __future__ import annotations

from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class SqsConnection(BaseModel):
    """An Amazon SQS queue, standard or FIFO; SNS topics may feed it."""

    model_config = ConfigDict(hide_input_in_errors=True)

    queue_url: str = Field(
        description="The queue's URL, e.g. https://sqs.eu-central-1.amazonaws.com/123456789012/in.",
        pattern=r"^https?://[^/@\s]+/[^\s?#]+$",
    )
    region: str | None = Field(
        default=None, description="Region of the queue, e.g. 'eu-central-1'."
    )
    endpoint_url: str | None = Field(
        default=None, description="Address of an SQS service other than AWS."
    )
    access_key_id: str | None = Field(
        default=None,
        description="Access key id; leave empty to use the credentials of the machine or role.",
    )
    secret_access_key: SecretStr | None = Field(
        default=None, description="Secret access key that belongs to the access key id."
    )
    session_token: SecretStr | None = Field(
        default=None, description="Session token, for temporary credentials only."
    )
    connect_timeout_s: float = Field(
        default=10.0, gt=0, description="Seconds to wait for a connection."
    )
    read_timeout_s: float = Field(
        default=30.0,
        gt=20,
        description="Seconds of silence before a call times out; a poll alone takes 20.",
    )

    @model_validator(mode="after")
    def _has_both_keys(self) -> Self:
        if bool(self.access_key_id) != bool(self.secret_access_key):
            raise ValueError("give both access key id and secret access key, or neither")
        return self

    @property
    def system(self) -> str:
        """Name of this queue in errors, e.g. "sqs://sqs.eu-central-1.amazonaws.com/1234/orders"."""
        parts = urlsplit(self.queue_url)
        return f"sqs://{parts.netloc}{parts.path}"

    def get_client(self) -> Any:
        """Build the boto3 client without connecting; any number of threads may share it."""
        import boto3
        from botocore.config import Config

        secret, token = self.secret_access_key, self.session_token
        session = boto3.Session(
            aws_access_key_id=self.access_key_id or None,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            aws_session_token=token.get_secret_value() if token else None,
            region_name=self.region or None,
        )
        return session.client(
            "sqs",
            endpoint_url=self.endpoint_url or None,
            config=Config(
                connect_timeout=self.connect_timeout_s,
                read_timeout=self.read_timeout_s,
                retries={"mode": "standard", "total_max_attempts": 1},  # the callers retry
                max_pool_connections=16,
            ),
        )
