"""An S3 service on the loopback; what it stores is gone when it stops."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox.systems.stand_in import StandIn

if TYPE_CHECKING:
    from blocks.s3_bucket import S3Bucket

_HOST = "127.0.0.1"
_KEY = "sandbox"


@dataclass
class S3Sandbox(StandIn):
    """A running service.

    Attributes:
        port: Of 127.0.0.1.
        access_key_id: Any is taken, with any secret, unless `check_credentials` says otherwise.
        client: For whoever runs the service.
    """

    port: int
    access_key_id: str
    secret_access_key: str
    client: Any
    _server: Any

    @property
    def endpoint_url(self) -> str:
        """Its address."""
        return f"http://{_HOST}:{self.port}"

    def block(self, bucket: str, **fields: Any) -> S3Bucket:
        """The block for a bucket; `fields` go before what would be right."""
        from blocks.s3_bucket import S3Bucket

        right = {
            "bucket": bucket,
            "endpoint_url": self.endpoint_url,
            "region": "us-east-1",
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            "addressing_style": "path",
        }
        return S3Bucket(**{**right, **fields})

    def check_credentials(self, *, on: bool) -> None:
        """Refuse all credentials, for it has given out none, or take any again."""
        import httpx

        count = "0" if on else "inf"
        httpx.post(f"{self.endpoint_url}/moto-api/reset-auth", content=count).raise_for_status()

    def reset(self, *, buckets: Sequence[str] = ()) -> None:
        """Forget everything, take any credentials, and make empty buckets."""
        import httpx

        httpx.post(f"{self.endpoint_url}/moto-api/reset").raise_for_status()
        self.check_credentials(on=False)
        for bucket in buckets:
            self.client.create_bucket(Bucket=bucket)

    def stop(self) -> None:
        """Stop listening and forget everything."""
        self.client.close()
        self._server.stop()


def start(*, port: int = 0, buckets: Sequence[str] = ()) -> S3Sandbox:
    """Start the service in a thread, with empty buckets.

    Args:
        port: 0 for a free one.
        buckets: Names, each 3 characters or more.
    """
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line for each request
    server = ThreadedMotoServer(ip_address=_HOST, port=port, verbose=False)
    server.start()
    running_port = server.get_host_and_port()[1]
    sandbox = S3Sandbox(
        port=running_port,
        access_key_id=_KEY,
        secret_access_key=_KEY,
        client=_client(running_port),
        _server=server,
    )
    sandbox.reset(buckets=buckets)
    return sandbox


def _client(port: int) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=f"http://{_HOST}:{port}",
        aws_access_key_id=_KEY,
        aws_secret_access_key=_KEY,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
