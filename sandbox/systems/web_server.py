"""Serves one ASGI application on the loopback until it is stopped."""

from __future__ import annotations

import socket
import threading
from typing import Any

import uvicorn
from starlette.responses import Response

HOST = "127.0.0.1"
_START_TIMEOUT_S = 30


class WebServer:
    """A server in a thread of its own; it serves from the moment it exists.

    Args:
        app: The ASGI application.
        port: 0 for a free one.
        name: Of the thread.
    """

    def __init__(self, app: Any, *, port: int, name: str) -> None:
        self._listener = socket.create_server((HOST, port))
        self.port: int = self._listener.getsockname()[1]
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="critical",
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()
        self._server.is_up.wait(_START_TIMEOUT_S)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self.port}"

    def stop(self) -> None:
        """Stop listening."""
        self._server.should_exit = True
        self._thread.join()

    def _serve(self) -> None:
        with self._listener:
            self._server.run([self._listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.is_up.set()


class CutAnswer(Response):
    """An answer in the middle of which the connection ends."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Announce more than is sent."""
        headers = [(b"content-length", b"1000"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        await send({"type": "http.response.body", "body": b""})
