"""A proxy before any TCP service that is slow, cuts, swallows or refuses when told to."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from sandbox.systems.stand_in import StandIn
from tasks.core.connectors.folders.background_loop import BackgroundLoop

_CHUNK_BYTES = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class FaultProxy(StandIn):
    """A running proxy; its switches work at once, on open connections too.

    Attributes:
        latency_s: Waited before each piece is passed on.
        cut_after_bytes: Connections are reset once so many bytes went through since it was set.
        swallow: Pieces are held back while it is on.
        swallow_from: Turns `swallow` on when a piece holds this.
        refuse: New connections are reset.
        connections: How many were accepted.
        port: Of 127.0.0.1, where it listens.
    """

    latency_s: float = 0.0
    cut_after_bytes: int | None = None
    swallow: bool = False
    swallow_from: bytes | None = None
    refuse: bool = False
    connections: int = 0
    port: int = 0
    _upstream: tuple[str, int] = ("127.0.0.1", 0)
    _loop: BackgroundLoop = field(default_factory=lambda: BackgroundLoop("fault-proxy"))
    _server: Any = None
    _open: dict[asyncio.StreamWriter, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """The loopback."""
        return "127.0.0.1"

    def stop(self) -> None:
        """Cut all connections and stop listening."""
        self._loop.run(self._unlisten())
        self._loop.close()

    async def _listen(self, port: int) -> None:
        self._server = await asyncio.start_server(self._accepted, self.host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _unlisten(self) -> None:
        self._server.close()
        for writer in list(self._open):  # also of those that did not begin to be served
            _reset(writer)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        serving = self._open[writer] = asyncio.create_task(self._serve(reader, writer))
        serving.add_done_callback(lambda _: self._open.pop(writer, None))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with ExitStack() as cut, suppress(OSError, ExceptionGroup):
            cut.callback(_reset, writer)
            if self.refuse:
                return
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
            cut.callback(_reset, up_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, up_writer))
                group.create_task(self._pass_on(up_reader, writer))
            cut.pop_all()
            writer.close()
            up_writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_CHUNK_BYTES):
            await asyncio.sleep(self.latency_s)
            self.swallow |= self.swallow_from is not None and self.swallow_from in piece
            while self.swallow:  # noqa: ASYNC110  # the switch is thrown by another thread
                await asyncio.sleep(0.01)
            if self.cut_after_bytes is not None:
                self.cut_after_bytes -= len(piece)
                if self.cut_after_bytes < 0:
                    raise ConnectionResetError
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


def start(upstream: tuple[str, int], *, port: int = 0) -> FaultProxy:
    """Pass everything on to `upstream` until a switch is thrown; port 0 takes a free one."""
    proxy = FaultProxy(_upstream=upstream)
    proxy._loop.run(proxy._listen(port))  # noqa: SLF001  # the module's own
    return proxy


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with suppress(OSError):  # closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
