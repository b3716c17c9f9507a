"""Dropbox on the loopback, over a folder that a person can look into."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from deployments.sandbox.dropbox_routes import Account, Faults
from deployments.sandbox.dropbox_store import Store
from deployments.sandbox.stand_in import StandIn

if TYPE_CHECKING:
    from blocks.dropbox_account import DropboxAccount

_HOST = "127.0.0.1"


@dataclass
class DropboxSandbox(StandIn):
    """A running API.

    Attributes:
        files: The folder that is the account.
        port: Of 127.0.0.1.
        requests: How often each route was called.
    """

    files: Path
    port: int
    app_key: str
    app_secret: str
    refresh_token: str
    faults: Faults
    requests: Counter[str]
    _tokens: set[str]
    _server: uvicorn.Server
    _thread: threading.Thread

    @property
    def api_url(self) -> str:
        """Its address."""
        return f"http://{_HOST}:{self.port}"

    def block(self, **fields: Any) -> DropboxAccount:
        """The block for it; `fields` go before what would be right."""
        from blocks.dropbox_account import DropboxAccount

        right = {
            "app_key": self.app_key,
            "app_secret": self.app_secret,
            "refresh_token": self.refresh_token,
            "api_url": self.api_url,
        }
        return DropboxAccount(**{**right, **fields})

    def expire_tokens(self) -> None:
        """Let every access token given out so far be too old."""
        self._tokens.clear()

    def stop(self) -> None:
        """Stop listening; the files stay."""
        self._server.should_exit = True
        self._thread.join()


def start(
    data_dir: Path,
    *,
    port: int = 0,
    app_key: str = "sandbox-app",
    app_secret: str = "sandbox",  # noqa: S107  # a stand-in's, not a secret
    refresh_token: str = "sandbox-refresh",  # noqa: S107
) -> DropboxSandbox:
    """Serve `data_dir`/files as an account.

    Args:
        data_dir: Made if it is missing.
        port: 0 for a free one.
        app_key: The app that is linked to the account.
        app_secret: Its secret.
        refresh_token: What the account's owner gave it.
    """
    account = Account(
        Store(data_dir / "files", data_dir / "uploads"), app_key, app_secret, refresh_token
    )
    listener = socket.create_server((_HOST, port))
    server = uvicorn.Server(
        uvicorn.Config(
            account.app(),
            log_config=None,
            log_level="critical",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
    )

    def serve() -> None:
        with listener:
            server.run([listener])

    thread = threading.Thread(target=serve, name="dropbox-sandbox", daemon=True)
    thread.start()
    return DropboxSandbox(
        files=data_dir / "files",
        port=listener.getsockname()[1],
        app_key=app_key,
        app_secret=app_secret,
        refresh_token=refresh_token,
        faults=account.faults,
        requests=account.requests,
        _tokens=account.tokens,
        _server=server,
        _thread=thread,
    )
