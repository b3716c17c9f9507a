"""A partner's HTTP API that answers exactly as a test tells it, down to cut connections."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any

import orjson

_LONGEST_SILENCE_S = 10


@dataclass(frozen=True)
class Received:
    """One request as the server saw it; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class ScriptedReply:
    """One answer.

    Attributes:
        body: Bytes as they are; anything else as JSON.
        status: The status.
        headers: More headers than Content-Length.
        sent_bytes: Cuts the connection after so many bytes of the body; None sends it all.
        silent: Says nothing until the test is over.
        closes: Closes the connection instead of answering.
    """

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    sent_bytes: int | None = None
    silent: bool = False
    closes: bool = False


class ScriptedApi:
    """Gives each request the next reply, and remembers what it was asked.

    Attributes:
        url: Where it listens.
        requests: All so far, in order.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Received] = []
        self.over = threading.Event()
        self._replies: deque[ScriptedReply | Callable[[Received], ScriptedReply]] = deque()

    def answer(self, *replies: ScriptedReply | Callable[[Received], ScriptedReply]) -> None:
        """Append replies, or functions that make them from the request."""
        self._replies.extend(replies)

    def reply_to(self, request: Received) -> ScriptedReply:
        """The next reply; a request that no reply is left for gets 500."""
        self.requests.append(request)
        if not self._replies:
            return ScriptedReply({"detail": "the script has no further reply"}, status=500)
        reply = self._replies.popleft()
        return reply if isinstance(reply, ScriptedReply) else reply(request)


@contextmanager
def start(tls: SSLContext | None = None) -> Iterator[ScriptedApi]:
    """Serve on a free port of the loopback until the block ends."""
    server = _Server(("127.0.0.1", 0), _Handler)
    if tls is not None:
        # the handshake is made by the thread of the connection, not by the one that accepts
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    scheme = "http" if tls is None else "https"
    server.api = ScriptedApi(f"{scheme}://127.0.0.1:{server.server_port}")
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="scripted-api"
    )
    thread.start()
    try:
        yield server.api
    finally:
        server.api.over.set()
        server.shutdown()
        thread.join()
        server.hang_up()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for them
    api: ScriptedApi

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections: set[socket.socket] = set()

    def hang_up(self) -> None:
        """End the connections that clients keep open."""
        for connection in list(self._connections):
            with suppress(OSError):  # it ended meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Remember each connection."""
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that ends."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        """Answer any method."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._send(self.server.api.reply_to(Received(self.command, self.path, headers, body)))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names http.server looks for

    def _send(self, reply: ScriptedReply) -> None:
        if reply.silent:
            self.server.api.over.wait(_LONGEST_SILENCE_S)
        if reply.silent or reply.closes:
            self.close_connection = True
            return
        body = reply.body if isinstance(reply.body, bytes) else orjson.dumps(reply.body)
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: reply.sent_bytes])
        self.close_connection = self.close_connection or reply.sent_bytes is not None
