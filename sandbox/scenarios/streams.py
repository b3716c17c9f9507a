"""Partners that announce orders over Kafka, SQS and e-mail, which the listeners listen to.

`listeners.json` in the sandbox's folder has the environment in which listeners reach them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from blocks.s3_bucket import S3Bucket
from sandbox.scenarios import Sandbox
from sandbox.systems import order_events

LISTENERS_FILE = "listeners.json"
_EVERY_S = 60


@contextmanager
def run(sandbox: Sandbox) -> Iterator[None]:
    """Announce an order over each of them every minute."""
    aws = sandbox.blocks["s3-bucket-of-files/marketplace"]
    assert isinstance(aws, S3Bucket), "the service that speaks S3 speaks SQS as well"  # noqa: S101
    with order_events.start(str(aws.endpoint_url)) as partners:
        path = sandbox.data / LISTENERS_FILE
        path.unlink(missing_ok=True)
        path.touch(mode=0o600, exist_ok=False)  # it holds passwords
        path.write_text(json.dumps(partners.environment()))

        def announce_orders() -> None:
            for sent in partners.send():
                print(f"a partner announced by {sent}", flush=True)

        sandbox.every(_EVERY_S, announce_orders)
        yield
