"""An Amazon SQS queue and the credentials for it."""

from __future__ import annotations

from prefect.blocks.core import Block

from blocks.connections.sqs import SqsConnection


class SqsQueue(SqsConnection, Block):
    """An Amazon SQS queue, standard or FIFO.

    Example:
        Send a message:
        ```python
        from blocks.sqs_queue import SqsQueue

        queue = SqsQueue.load("BLOCK_NAME")
        client = queue.get_client()
        client.send_message(QueueUrl=queue.queue_url, MessageBody='{"type": "order.placed"}')
        ```
    """

    _block_type_name = "Amazon SQS Queue"
    _block_type_slug = "sqs-queue"
