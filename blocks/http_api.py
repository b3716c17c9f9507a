"""Where an HTTP API is, who we are there, and how long and often we try."""

from __future__ import annotations

import ssl
from base64 import b64encode
from typing import Literal

import httpx
from prefect.blocks.core import Block
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from blocks.connections.network import public_authorities
from blocks.errors import MisconfiguredError

_KIND = "Names these credentials; leave it as it is."


class NoAuth(BaseModel):
    """The API is open to all."""

    model_config = ConfigDict(title="None", extra="forbid")

    kind: Literal["none"] = Field(default="none", description=_KIND)


class ApiKeyAuth(BaseModel):
    """A key with every request."""

    model_config = ConfigDict(title="API key", extra="forbid")

    kind: Literal["api_key"] = Field(default="api_key", description=_KIND)
    key: SecretStr = Field(description="The key.")
    name: str = Field(
        default="X-API-Key", description="Header or query parameter that carries the key."
    )
    send_in: Literal["header", "query"] = Field(
        default="header",
        description="Where the key goes; addresses with a key in the query end in others' logs.",
    )


class BasicAuth(BaseModel):
    """User and password."""

    model_config = ConfigDict(title="User and password", extra="forbid")

    kind: Literal["basic"] = Field(default="basic", description=_KIND)
    username: str = Field(description="The user.")
    password: SecretStr = Field(description="The password.")


class BearerAuth(BaseModel):
    """A token that does not expire."""

    model_config = ConfigDict(title="Bearer token", extra="forbid")

    kind: Literal["bearer"] = Field(default="bearer", description=_KIND)
    token: SecretStr = Field(description="The token, without the word Bearer.")


class OAuth2Grant(BaseModel):
    """What all OAuth 2 grants have in common."""

    token_url: str = Field(description="The token endpoint, a whole URL.")
    client_id: str = Field(description="The client's name.")
    client_secret: SecretStr = Field(description="The client's secret.")
    scope: str = Field(default="", description="Scopes to ask for, separated by spaces.")
    parameters: dict[str, str] = Field(
        default_factory=dict, description="More fields of the token request, such as audience."
    )
    client_auth: Literal["header", "form"] = Field(
        default="header", description="Where the token endpoint wants the client's secret."
    )


class OAuth2Client(OAuth2Grant):
    """Tokens for a client that acts for itself."""

    model_config = ConfigDict(title="OAuth 2 client", extra="forbid")

    kind: Literal["oauth2_client"] = Field(default="oauth2_client", description=_KIND)


class OAuth2RefreshToken(OAuth2Grant):
    """Tokens for a client that acts for a user who has consented."""

    model_config = ConfigDict(title="OAuth 2 refresh token", extra="forbid")

    kind: Literal["oauth2_refresh_token"] = Field(default="oauth2_refresh_token", description=_KIND)
    refresh_token: SecretStr = Field(description="The refresh token that the consent gave.")


Auth = NoAuth | ApiKeyAuth | BasicAuth | BearerAuth | OAuth2Client | OAuth2RefreshToken


class HttpApi(Block):
    """An HTTP API: its address, the credentials, time-outs, limits and retries.

    The tasks of `tasks.api` take this block. `get_client` gives the bare client for what they do
    not offer; retries, limits and OAuth 2 tokens are theirs.

    Example:
        Ask an API with its credentials:
        ```python
        from blocks.http_api import HttpApi

        api = HttpApi.load("BLOCK_NAME")
        with api.get_client() as client:
            answer = client.get("inventory", params={"limit": 1})
        ```
    """

    _block_type_name = "HTTP API"
    _block_type_slug = "http-api"
    _description = "An HTTP API: its address, the credentials, time-outs, limits and retries."

    model_config = ConfigDict(hide_input_in_errors=True)

    base_url: str = Field(
        description=(
            "What all paths start from, e.g. https://api.partner.example/v2; without user, "
            "password and query."
        )
    )
    auth: Auth = Field(default_factory=NoAuth, description="How requests show who we are.")
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="More headers of every request, such as an API version; no secrets.",
    )
    connect_timeout_s: float = Field(
        default=5, gt=0, description="Seconds to wait for a connection."
    )
    read_timeout_s: float = Field(
        default=30, gt=0, description="Seconds of silence after which a request is given up."
    )
    total_timeout_s: float = Field(
        default=300, gt=0, description="Seconds after which even a dripping answer is given up."
    )
    max_attempts: int = Field(
        default=4,
        ge=1,
        le=20,
        description="How often a call is tried when the API is out of reach, busy or broken.",
    )
    first_wait_s: float = Field(
        default=0.5, gt=0, description="Seconds before the second attempt; doubled each time."
    )
    max_wait_s: float = Field(
        default=30, gt=0, description="Most seconds between two attempts, unless the API asks."
    )
    max_retry_after_s: float = Field(
        default=60,
        ge=0,
        description="Most seconds to wait when the API asks for it; the call fails above that.",
    )
    max_response_bytes: int = Field(
        default=64 * 1024 * 1024,
        gt=0,
        description="Largest answer to take, in bytes after decompression.",
    )
    verify_tls: bool = Field(
        default=True,
        description=(
            "Check the server's certificate. WARNING: without, whoever is on the way can read "
            "and change everything, the credentials too."
        ),
    )
    ca_file: str = Field(
        default="",
        description="PEM file of the authorities to trust instead of the public ones.",
    )
    rate_limit: str = Field(
        default="",
        description=(
            "Name of a global concurrency limit with slot decay; each request takes one slot, so "
            "that all runs together keep to one budget."
        ),
    )

    @field_validator("base_url")
    @classmethod
    def _is_bare(cls, value: str) -> str:
        try:
            url = httpx.URL(value)
        except httpx.InvalidURL as exc:
            raise ValueError("not a URL") from exc
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("must begin with http:// or https:// and a host")
        if url.userinfo:
            raise ValueError("must not hold user and password; give them as auth")
        if url.query or url.fragment:
            raise ValueError("must not have a query or fragment")
        return value

    @property
    def system(self) -> str:
        """What errors call this API, e.g. "https://api.partner.example"."""
        url = httpx.URL(self.base_url)
        return f"{url.scheme}://{url.netloc.decode('ascii')}"

    def get_client(self) -> httpx.Client:
        """A client with address, time-outs, TLS and static credentials set.

        OAuth 2 tokens are not: `tasks.api.open_api` fetches them.

        Raises:
            MisconfiguredError: `ca_file` cannot be read.
        """
        return httpx.Client(
            base_url=self.base_url,
            headers=self.headers,
            auth=self._sign,
            timeout=httpx.Timeout(self.read_timeout_s, connect=self.connect_timeout_s),
            verify=self._tls(),
        )

    def _sign(self, request: httpx.Request) -> httpx.Request:
        match self.auth:
            case ApiKeyAuth(key=key, name=name, send_in="query"):
                request.url = request.url.copy_set_param(name, key.get_secret_value())
            case ApiKeyAuth(key=key, name=name):
                request.headers[name] = key.get_secret_value()
            case BasicAuth(username=username, password=password):
                pair = f"{username}:{password.get_secret_value()}".encode()
                request.headers["Authorization"] = f"Basic {b64encode(pair).decode()}"
            case BearerAuth(token=token):
                request.headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        return request

    def _tls(self) -> ssl.SSLContext | bool:
        if not self.verify_tls:
            return False
        if not self.ca_file:
            return public_authorities()
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as exc:
            raise MisconfiguredError(
                f"ca_file {self.ca_file!r} cannot be read as PEM certificates",
                system=self.system,
                operation="connect",
            ) from exc
