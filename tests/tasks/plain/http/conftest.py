"""A clock that only moves when somebody sleeps, and a server that answers as a test scripts it."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import orjson
import pytest

from tasks.plain.http.client import ApiClient

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class FakeTime:
    """Time that passes by sleeping."""

    def __init__(self):
        self.waits = []

    def clock(self):
        return sum(self.waits)

    def sleep(self, seconds):
        self.waits.append(seconds)

    def now(self):
        return NOON + timedelta(seconds=sum(self.waits))


@dataclass
class Reply:
    """One scripted answer: whole, cut after `sent` bytes of its body, or none at all."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict = field(default_factory=dict)
    sent: int | None = None
    silent: bool = False
    closes: bool = False


@dataclass
class Received:
    """One request as the server saw it."""

    method: str
    path: str
    headers: dict
    body: bytes


class ScriptedServer:
    """Answers each request with the next reply, and remembers what it was asked."""

    def __init__(self):
        self.requests = []
        self.replies = deque()
        self._over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.requests.append(Received(self.command, self.path, headers, body))
                outer.reply(self)

            def do_POST(self):
                self.do_GET()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # clients that hang up are what is tested
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, *replies):
        self.replies.extend(replies)

    def reply(self, handler):
        reply = self.replies.popleft()
        if callable(reply):
            reply = reply(self.requests[-1])
        if reply.silent:
            self._over.wait(10)
        if reply.silent or reply.closes:
            handler.close_connection = True
            return
        handler.send_response_only(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(reply.body)))
        handler.end_headers()
        handler.wfile.write(reply.body[: reply.sent])
        if reply.sent is not None:
            handler.close_connection = True

    def close(self):
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server():
    scripted = ScriptedServer()
    yield scripted
    scripted.close()


@pytest.fixture
def fake_time():
    return FakeTime()


@pytest.fixture
def client_of(fake_time):
    """Makes a client of a URL, or of a function from request to response."""
    opened = []

    def make(target, **options):
        if isinstance(target, str):
            http = httpx.Client(base_url=target, timeout=5)
        else:
            transport = httpx.MockTransport(target)
            http = httpx.Client(base_url="https://api.example/v1", transport=transport)
        opened.append(http)
        return ApiClient(
            http,
            **{
                "system": "https://api.example",
                "sleep": fake_time.sleep,
                "clock": fake_time.clock,
                "now": fake_time.now,
                **options,
            },
        )

    yield make
    for http in opened:
        http.close()


@pytest.fixture
def reply():
    """Makes a scripted reply; a dict or list becomes its JSON body."""

    def make(body=b"{}", **options):
        return Reply(body=body if isinstance(body, bytes) else orjson.dumps(body), **options)

    return make
