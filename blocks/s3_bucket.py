"""An S3 bucket, on AWS or elsewhere, and the credentials for it.

`prefect_aws.AwsCredentials` is not used: importing it loads the ECS worker and aiobotocore
(0.8 s, 26 MB), which pins botocore to older versions; it does not hide the session token and
sets no timeouts. Without credentials boto3 uses those of the machine, as it does there.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import urlsplit

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

if TYPE_CHECKING:
    from botocore.loaders import Loader
    from mypy_boto3_s3 import S3Client


class S3Bucket(Block):
    """An S3 bucket, or one prefix of it, on AWS or any compatible service.

    Example:
        List the files that wait in a folder:
        ```python
        from blocks.s3_bucket import S3Bucket
        from tasks.folders import open_folder

        bucket = S3Bucket.load("BLOCK_NAME")
        with open_folder(bucket) as folder:
            for file in folder.list_files("incoming"):
                print(file.path, file.size, file.modified_at)
        ```
    """

    # Prefect's own catalogue has an "S3 Bucket", from prefect-aws.
    _block_type_name = "S3 Bucket of Files"
    _block_type_slug = "s3-bucket-of-files"

    model_config = ConfigDict(hide_input_in_errors=True)

    bucket: str = Field(description="Name of the bucket.", min_length=3, max_length=255)
    prefix: str = Field(
        default="",
        description="Folder in the bucket that all paths start from, e.g. 'partners/acme'.",
    )
    region: str | None = Field(
        default=None, description="Region of the bucket, e.g. 'eu-central-1'."
    )
    endpoint_url: str | None = Field(
        default=None,
        description="Address of an S3 service other than AWS, e.g. 'https://minio.example:9000'.",
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
    addressing_style: Literal["auto", "path", "virtual"] = Field(
        default="auto",
        description="Where the bucket's name goes in URLs; most services except AWS use 'path'.",
    )
    connect_timeout_s: float = Field(
        default=10.0, description="Seconds to wait for a connection.", gt=0
    )
    read_timeout_s: float = Field(
        default=60.0, description="Seconds of silence before a request times out.", gt=0
    )
    attempts: int = Field(
        default=3,
        description="Most attempts per request, at least 1.",
        ge=1,
        le=10,
    )

    @field_validator("endpoint_url")
    @classmethod
    def _is_plain_address(cls, value: str | None) -> str | None:
        if not value:  # an emptied field of the form
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("write the endpoint as https://host or https://host:port")
        if parts.username or parts.password:
            raise ValueError("the endpoint must not hold credentials: they would be shown")
        return value

    @model_validator(mode="after")
    def _has_both_keys(self) -> Self:
        if bool(self.access_key_id) != bool(self.secret_access_key):
            raise ValueError("give both access key id and secret access key, or neither")
        return self

    @property
    def system(self) -> str:
        """Name of this place in errors, e.g. "s3://acme-exchange/incoming"."""
        where = urlsplit(self.endpoint_url).netloc + "/" if self.endpoint_url else ""
        prefix = self.prefix.strip("/")
        return f"s3://{where}{self.bucket}" + (f"/{prefix}" if prefix else "")

    def get_client(self) -> S3Client:
        """Build the client without connecting."""
        import boto3
        from botocore.config import Config
        from botocore.session import get_session

        core = get_session()
        core.register_component("data_loader", _service_models())
        secret, token = self.secret_access_key, self.session_token
        session = boto3.Session(
            botocore_session=core,
            aws_access_key_id=self.access_key_id or None,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            aws_session_token=token.get_secret_value() if token else None,
            region_name=self.region or None,
        )
        return session.client(
            "s3",
            endpoint_url=self.endpoint_url,
            config=Config(
                connect_timeout=self.connect_timeout_s,
                read_timeout=self.read_timeout_s,
                retries={"mode": "standard", "total_max_attempts": self.attempts},
                s3={"addressing_style": self.addressing_style},
                max_pool_connections=16,
                # Not every other service supports the newer checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


@cache
def _service_models() -> Loader:
    """Return botocore's models, cached: reading them takes most of the time to build a client."""
    from botocore.loaders import create_loader

    return create_loader()
