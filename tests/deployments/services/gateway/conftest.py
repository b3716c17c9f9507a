"""A gateway in this process: its ASGI application, its database and what it logs."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import Engine, text

from deployments.services.gateway.access_log import AccessLog
from deployments.services.gateway.app import Gateway
from deployments.services.gateway.endpoints import make_endpoints
from deployments.services.gateway.forwarding import Forwarding
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.registry.declarations import read_declarations
from tasks.core.state.database import open_database

SECRET = "It's a Secret to Everybody"
ENVIRONMENT = {"SECRET": SECRET}


@dataclass
class Setup:
    """A running gateway and all its sides."""

    app: Gateway
    client: httpx.AsyncClient
    engine: Engine
    log: io.BytesIO
    notified: list[str] = field(default_factory=list)
    confirmed: list[str] = field(default_factory=list)

    def rows(self, columns: str = "event, status") -> list[tuple[Any, ...]]:
        """What is in the inbox, in order of arrival; requests joined."""
        with self.engine.connect() as connection:
            found = connection.execute(
                text(
                    f"SELECT {columns} FROM inbox_deliveries d "
                    "JOIN inbox_requests r ON r.id = d.request_id "
                    "LEFT JOIN inbox_payloads p ON p.delivery_id = d.id ORDER BY seq"
                )
            )
            return [tuple(row) for row in found]

    def lines(self) -> list[dict[str, Any]]:
        """The access log so far."""
        self.app._access_log.flush()
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@asynccontextmanager
async def lifespan(app: Gateway) -> AsyncIterator[None]:
    """Start and stop an application as an ASGI server does."""
    to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan", "state": {}}, to_app.get, from_app.put))
    await to_app.put({"type": "lifespan.startup"})
    assert (await from_app.get())["type"] == "lifespan.startup.complete"
    yield
    await to_app.put({"type": "lifespan.shutdown"})
    assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
    await task


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables; migrating costs more than copying."""
    file = tmp_path_factory.mktemp("database") / "state.db"
    open_database(f"sqlite:///{file}").dispose()
    return file


@pytest.fixture
def engine(tmp_path: Path, empty_database: Path) -> Iterator[Engine]:
    """A database of this test."""
    shutil.copy(empty_database, tmp_path / "state.db")
    engine = open_database(f"sqlite:///{tmp_path / 'state.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
async def start(tmp_path: Path, engine: Engine) -> AsyncIterator[Callable[..., Any]]:
    """Start a gateway with endpoints as an integration declares them, by name."""
    async with AsyncExitStack() as stack:

        async def start_gateway(
            endpoints: dict[str, Any],
            *,
            environment: dict[str, str] = ENVIRONMENT,
            forwarding: Forwarding | None = None,
            confirms: bool = True,
            fetch_certificate: Callable[[str], bytes] | None = None,
            **arguments: Any,
        ) -> Setup:
            file = tmp_path / "integration.yaml"
            file.write_text(yaml.safe_dump({"integration": "shop", "endpoints": endpoints}))
            notified: list[str] = []
            confirmed: list[str] = []
            log = io.BytesIO()

            async def post_event(integration: str) -> None:
                notified.append(integration)

            async def confirm(url: str) -> bool:
                confirmed.append(url)
                return confirms

            app = Gateway(
                make_endpoints(
                    read_declarations([file]), environment, fetch_certificate=fetch_certificate
                ),
                writer=InboxWriter(engine, busy_timeout_s=0.05),
                post_event=post_event,
                count_runs=lambda _integration: 0,
                forwarding=forwarding or Forwarding(),
                access_log=AccessLog(log),
                confirm=confirm,
                **arguments,
            )
            await stack.enter_async_context(lifespan(app))
            transport = httpx.ASGITransport(app, client=("203.0.113.7", 1234))
            client = httpx.AsyncClient(transport=transport, base_url="https://hooks.example")
            await stack.enter_async_context(client)
            return Setup(app, client, engine, log, notified, confirmed)

        yield start_gateway


GITHUB = {"path": "/github", "scheme": "github", "secrets": {"env": "SECRET"}}


@pytest.fixture
def github() -> dict[str, Any]:
    """The declaration of an endpoint for GitHub."""
    return dict(GITHUB)


@pytest.fixture
def sign() -> Callable[..., dict[str, str]]:
    """The headers of a GitHub delivery with this body."""

    def headers(body: bytes, event: str = "push", secret: str = SECRET) -> dict[str, str]:
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        return {
            "X-Hub-Signature-256": f"sha256={digest}",
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
            "Content-Type": "application/json",
        }

    return headers
