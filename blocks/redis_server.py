"""A Redis server and its login."""

from __future__ import annotations

from prefect.blocks.core import Block

from blocks.connections.redis import RedisConnection


class RedisServer(RedisConnection, Block):
    """A database on a Redis server.

    Example:
        Add an entry to a stream:
        ```python
        from blocks.redis_server import RedisServer

        import asyncio

        async def send():
            async with (await RedisServer.aload("BLOCK_NAME")).get_client() as client:
                await client.xadd("orders", {"body": b"{}"})

        asyncio.run(send())
        ```
    """

    _block_type_name = "Redis Server"
    _block_type_slug = "redis-server"
