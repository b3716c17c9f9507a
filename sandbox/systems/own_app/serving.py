"""The application on a free port of the loopback in a thread of this process, for tests."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.systems.own_app.app import create_app

_START_TIMEOUT_S = 10


class RunningOwnApp:
    """The application as a test sees it.

    Attributes:
        base_url: E.g. "http://127.0.0.1:40123", without "/api/v1".
        api_key: What `X-API-Key` must be.
    """

    def __init__(self, base_url: str, api_key: str) -> None:
        self.base_url = base_url
        self.api_key = api_key
        self.http = httpx.Client(base_url=base_url, headers={"X-API-Key": api_key}, timeout=10)

    def behave(self, mode: str = "ok", **settings: Any) -> None:
        """Switch misbehaviour on or off: `own_app.behave("error", status=503, remaining=2)`."""
        self.http.put("/sandbox/behaviour", json={"mode": mode, **settings}).raise_for_status()

    def requests(self) -> dict[str, Any]:
        """What it was asked: {"total", "counts", "records", "requests"}."""
        report: dict[str, Any] = self.http.get("/sandbox/requests").raise_for_status().json()
        return report

    def forget_requests(self) -> None:
        """Count anew."""
        self.http.delete("/sandbox/requests").raise_for_status()

    def records(self, resource: str) -> list[dict[str, Any]]:
        """All stored records in the order they last changed; counts as requests."""
        found: list[dict[str, Any]] = []
        params: dict[str, Any] = {"limit": 1000}
        while True:
            page = self.http.get(f"/api/v1/{resource}", params=params).raise_for_status().json()
            found += page["records"]
            if page["next_cursor"] is None:
                return found
            params["cursor"] = page["next_cursor"]


class OwnAppHost:
    """A server on a free port that serves one application after another.

    Starting and stopping a server takes 0.2 s, a new application on it a millisecond.
    """

    def __init__(self, *, port: int = 0) -> None:
        self._app: ASGIApp | None = None
        self._listener = socket.create_server(("127.0.0.1", port))
        config = uvicorn.Config(
            self._serve,
            log_config=None,
            log_level="critical",
            access_log=False,
            interface="asgi3",
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._listener],), name="own-app", daemon=True
        )

    def __enter__(self) -> Self:
        """Start listening."""
        self._thread.start()
        if not self._server.is_up.wait(_START_TIMEOUT_S):
            raise RuntimeError("own app did not start")
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    @contextmanager
    def serving(self, database: Path, *, api_key: str = "own-app-key") -> Iterator[RunningOwnApp]:
        """Serve the application on this file until the block ends."""
        app = create_app(database, [api_key])
        self._app = app
        self._run(app.state.courier.start())
        own_app = RunningOwnApp(f"http://127.0.0.1:{self._listener.getsockname()[1]}", api_key)
        try:
            yield own_app
        finally:
            own_app.http.close()
            self._app = None
            self._run(app.state.courier.stop())
            app.state.store.close()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """In the server's event loop."""
        asyncio.run_coroutine_threadsafe(coroutine, self._server.loop).result()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is not None:
            await self._app(scope, receive, send)


@contextmanager
def running_own_app(
    database: Path, *, api_key: str = "own-app-key", port: int = 0
) -> Iterator[RunningOwnApp]:
    """Serve on a port of its own until the block ends; what is stored stays in `database`."""
    with OwnAppHost(port=port) as host, host.serving(database, api_key=api_key) as own_app:
        yield own_app


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()
        self.loop: asyncio.AbstractEventLoop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.loop = asyncio.get_running_loop()
        self.is_up.set()
