"""TLS before any plain TCP service, as a terminating proxy or a broker's own listener has it."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sandbox.systems.stand_in import StandIn
from tasks.core.connectors.folders.background_loop import BackgroundLoop

_CHUNK_BYTES = 64 * 1024


@dataclass
class TlsProxy(StandIn):
    """A running proxy.

    Attributes:
        port: Of 127.0.0.1, where it listens.
    """

    port: int = 0
    _loop: BackgroundLoop = field(default_factory=lambda: BackgroundLoop("tls-proxy"))
    _server: Any = None

    def stop(self) -> None:
        """Stop listening."""
        self._loop.run(self._unlisten())
        self._loop.close()

    async def _listen(self, upstream: tuple[str, int], tls: ssl.SSLContext) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                up_reader, up_writer = await asyncio.open_connection(*upstream)
                await asyncio.gather(_pass_on(reader, up_writer), _pass_on(up_reader, writer))
            finally:
                writer.transport.abort()

        self._server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _unlisten(self) -> None:
        self._server.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # either side went away: so does the other
        while piece := await reader.read(_CHUNK_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.close()


def start(upstream: tuple[str, int], tls: ssl.SSLContext) -> TlsProxy:
    """Take TLS connections on a free port and pass on what they say.

    Args:
        upstream: The plain service.
        tls: What is presented, e.g. `certificate.server_tls(folder)`.
    """
    proxy = TlsProxy()
    proxy._loop.run(proxy._listen(upstream, tls))  # noqa: SLF001 - the module's own
    return proxy
