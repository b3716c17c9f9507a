"""A RabbitMQ broker and its login."""

from __future__ import annotations

from prefect.blocks.core import Block

from blocks.connections.rabbitmq import RabbitMqConnection


class RabbitMqBroker(RabbitMqConnection, Block):
    """A virtual host on a RabbitMQ broker.

    Example:
        Send a message and wait until the broker has it:
        ```python
        from blocks.rabbitmq_broker import RabbitMqBroker

        import asyncio
        import aio_pika

        async def send():
            connection = await (await RabbitMqBroker.aload("BLOCK_NAME")).get_client()
            async with connection:
                channel = await connection.channel()
                message = aio_pika.Message(b"{}", message_id="evt-1001")
                await channel.default_exchange.publish(message, "orders")

        asyncio.run(send())
        ```
    """

    _block_type_name = "RabbitMQ Broker"
    _block_type_slug = "rabbitmq-broker"
