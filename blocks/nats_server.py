"""A NATS server and its login."""

from __future__ import annotations

from prefect.blocks.core import Block

from blocks.connections.nats import NatsConnection


class NatsServer(NatsConnection, Block):
    """A NATS server or cluster with JetStream.

    Example:
        Send a message and wait until the stream has it:
        ```python
        from blocks.nats_server import NatsServer

        import asyncio

        async def send():
            client = await (await NatsServer.aload("BLOCK_NAME")).get_client()
            await client.jetstream().publish("orders", b"{}")
            await client.close()

        asyncio.run(send())
        ```
    """

    _block_type_name = "NATS Server"
    _block_type_slug = "nats-server"
