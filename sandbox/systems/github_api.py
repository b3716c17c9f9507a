"""GitHub's API for repositories on the loopback: webhooks that really call, and issues."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sandbox.systems.github_hooks import GithubHooks
from sandbox.systems.github_issues import GithubIssues
from sandbox.systems.stand_in import StandIn
from sandbox.systems.web_server import WebServer

if TYPE_CHECKING:
    from blocks.http_api import HttpApi


class GithubSandbox(StandIn):
    """A running API.

    Attributes:
        repository: The only repository, as owner/name.
        hooks: Its webhooks.
        issues: Its issues.
    """

    def __init__(self, port: int, token: str, repository: str) -> None:
        self.repository = repository
        self.hooks = GithubHooks(repository)
        self.issues = GithubIssues(repository, self.hooks.tell)
        self._token = token
        app = Starlette(
            routes=[*self.hooks.routes(), *self.issues.routes()],
            middleware=[Middleware(BaseHTTPMiddleware, dispatch=self._guard)],
        )
        self._server = WebServer(app, port=port, name="github-sandbox")

    @property
    def url(self) -> str:
        """Its address."""
        return self._server.url

    def block(self, **fields: Any) -> HttpApi:
        """The block for it; `fields` go before what would be right."""
        from pydantic import SecretStr

        from blocks.http_api import BearerAuth, HttpApi

        right = {
            "base_url": self.url,
            "auth": BearerAuth(token=SecretStr(self._token)),
            "headers": {"Accept": "application/vnd.github+json"},
        }
        return HttpApi(**{**right, **fields})

    def reset(self) -> None:
        """Forget everything and every fault."""
        self.hooks.reset()
        self.issues.reset()

    def stop(self) -> None:
        """Stop listening."""
        self._server.stop()
        self.hooks.close()

    async def _guard(self, request: Request, go_on: RequestResponseEndpoint) -> Response:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return JSONResponse({"message": "Bad credentials"}, 401)
        return await go_on(request)


def start(
    *,
    port: int = 0,
    token: str = "sandbox-github-token",  # noqa: S107 - a stand-in's, not a secret
    repository: str = "example-shop/storefront",
) -> GithubSandbox:
    """Serve; everything is forgotten when it stops.

    Args:
        port: 0 for a free one.
        token: What the Authorization header must hold.
        repository: The repository that there is, as owner/name.
    """
    return GithubSandbox(port, token, repository)
