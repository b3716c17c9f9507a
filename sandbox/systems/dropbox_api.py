"""Dropbox on the loopback, over a folder that a person can look into."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox.systems.dropbox_routes import Account, Faults
from sandbox.systems.dropbox_store import Store
from sandbox.systems.stand_in import StandIn
from sandbox.systems.web_server import WebServer

if TYPE_CHECKING:
    from blocks.dropbox_account import DropboxAccount


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
    _server: WebServer

    @property
    def api_url(self) -> str:
        """Its address."""
        return self._server.url

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
        self._server.stop()


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
    server = WebServer(account.app(), port=port, name="dropbox-sandbox")
    return DropboxSandbox(
        files=data_dir / "files",
        port=server.port,
        app_key=app_key,
        app_secret=app_secret,
        refresh_token=refresh_token,
        faults=account.faults,
        requests=account.requests,
        _tokens=account.tokens,
        _server=server,
    )
