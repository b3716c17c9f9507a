"""A depot that puts its orders into an SQS queue, from which they are fetched on a schedule."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from blocks.s3_bucket import S3Bucket
from blocks.sqs_queue import SqsQueue
from sandbox.scenarios import Sandbox

_QUEUE = "depot-orders"
_EVERY_S = 45
_ORDERS_AT_ONCE = 5


@contextmanager
def run(sandbox: Sandbox) -> Iterator[None]:
    """Put some orders into the queue every now and then."""
    aws = sandbox.blocks["s3-bucket-of-files/marketplace"]
    assert isinstance(aws, S3Bucket), "the service that speaks S3 speaks SQS as well"  # noqa: S101
    queue = SqsQueue(
        queue_url=f"{aws.endpoint_url}/123456789012/{_QUEUE}",
        endpoint_url=aws.endpoint_url,
        region="us-east-1",
        access_key_id="sandbox",
        secret_access_key=SecretStr("sandbox"),
    )
    client = queue.get_client()
    queue.queue_url = client.create_queue(QueueName=_QUEUE)["QueueUrl"]
    sandbox.blocks[f"sqs-queue/{_QUEUE}"] = queue

    def put_orders() -> None:
        for number in range(_ORDERS_AT_ONCE):
            client.send_message(QueueUrl=queue.queue_url, MessageBody=json.dumps(_order(number)))
        print(f"the depot put {_ORDERS_AT_ONCE} orders into its queue", flush=True)

    sandbox.every(_EVERY_S, put_orders)
    yield
    client.close()


def _order(number: int) -> dict[str, Any]:
    now = datetime.now(UTC)
    quantity = random.randint(1, 20)
    return {
        "number": f"D-{now:%m%d%H%M%S}-{number}",
        "client": random.choice(("Depot North", "Depot South")),
        "placed": now.isoformat(),
        "sum": f"{quantity * 2.25:.2f}",
        "currency": "EUR",
        "items": [{"sku": "E-0001", "quantity": quantity, "unit_price": "2.25"}],
    }
