"""An HTTP API: address, credentials, timeouts, limits and retries."""

from __future__ import annotations

import ssl
from base64 import b64encode
from typing import Literal

import httpx
from prefect.blocks.core import Block
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from blocks.connections.network import public_authorities
from blocks.errors import MisconfiguredError

_KIND = "Kind of these credentials; do not change."


class NoAuth(BaseModel):
    """No credentials: the API is open to all."""

    model_config = ConfigDict(title="None", extra="forbid")

    kind: Literal["none"] = Field(default="none", description=_KIND)


class ApiKeyAuth(BaseModel):
    """A key sent with every request."""

    model_config = ConfigDict(title="API key", extra="forbid")

    kind: Literal["api_key"] = Field(default="api_key", description=_KIND)
    key: SecretStr = Field(description="The key.")
    name: str = Field(
        default="X-API-Key", description="Header or query parameter that carries the key."
    )
    send_in: Literal["header", "query"] = Field(
        default="header",
        description="Where the key goes; a key in the query ends up in other people's logs.",
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
    """The settings that all OAuth 2 grants share."""

    token_url: str = Field(description="Full URL of the token endpoint.")
    client_id: str = Field(description="The client id.")
    client_secret: SecretStr = Field(description="The client's secret.")
    scope: str = Field(default="", description="Scopes to request, separated by spaces.")
    parameters: dict[str, str] = Field(
        default_factory=dict, description="Extra fields of the token request, such as audience."
    )
    client_auth: Literal["header", "form"] = Field(
        default="header", description="Where the token endpoint expects the client secret."
    )


class OAuth2Client(OAuth2Grant):
    """Tokens for a client that acts for itself."""

    model_config = ConfigDict(title="OAuth 2 client", extra="forbid")

    kind: Literal["oauth2_client"] = Field(default="oauth2_client", description=_KIND)


class OAuth2RefreshToken(OAuth2Grant):
    """Tokens for a client that acts for a user who has consented."""

    model_config = ConfigDict(title="OAuth 2 refresh token", extra="forbid")

    kind: Literal["oauth2_refresh_token"] = Field(default="oauth2_refresh_token", description=_KIND)
    refresh_token: SecretStr = Field(description="The refresh token from the user's consent.")


Auth = NoAuth | ApiKeyAuth | BasicAuth | BearerAuth | OAuth2Client | OAuth2RefreshToken


class HttpApi(Block):
    """An HTTP API: its address, credentials, timeouts, limits and retries.

    The tasks of `tasks.api` take this block; they add retries, limits and OAuth 2 tokens.
    `get_client` returns the bare client for anything they do not offer.

    Example:
        Call an API with its credentials:
        ```python
        from blocks.http_api import HttpApi

        api = HttpApi.load("BLOCK_NAME")
        with api.get_client() as client:
            answer = client.get("inventory", params={"limit": 1})
        ```
    """

    _block_type_name = "HTTP API"
    _block_type_slug = "http-api"
    _description = "An HTTP API: its address, credentials, timeouts, limits and retries."

    model_config = ConfigDict(hide_input_in_errors=True)

    base_url: str = Field(
        description=(
            "URL that all paths start from, e.g. https://api.partner.example/v2; without user, "
            "password or query."
        )
    )
    auth: Auth = Field(default_factory=NoAuth, description="Credentials sent with requests.")
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="Extra headers for every request, such as an API version; no secrets.",
    )
    connect_timeout_s: float = Field(
        default=5, gt=0, description="Seconds to wait for a connection."
    )
    read_timeout_s: float = Field(
        default=30, gt=0, description="Seconds of silence before a request times out."
    )
    total_timeout_s: float = Field(
        default=300, gt=0, description="Seconds a call may take, even while data still arrives."
    )
    max_attempts: int = Field(
        default=4,
        ge=1,
        le=20,
        description="Most attempts per call while the API is unreachable, busy or failing.",
    )
    first_wait_s: float = Field(
        default=0.5, gt=0, description="Seconds before the second attempt; doubled each time."
    )
    max_wait_s: float = Field(
        default=30,
        gt=0,
        description="Most seconds between two attempts, unless the API asks for more.",
    )
    max_retry_after_s: float = Field(
        default=60,
        ge=0,
        description="Most seconds to wait when the API asks; if it asks for more, the call fails.",
    )
    max_response_bytes: int = Field(
        default=64 * 1024 * 1024,
        gt=0,
        description="Largest response to accept, in bytes after decompression.",
    )
    verify_tls: bool = Field(
        default=True,
        description=(
            "Check the server's certificate. WARNING: if off, anyone on the network path can "
            "read and change everything, including the credentials."
        ),
    )
    ca_file: str = Field(
        default="",
        description="PEM file of the certificate authorities to trust instead of the public ones.",
    )
    rate_limit: str = Field(
        default="",
        description=(
            "Name of a global concurrency limit with slot decay; each request takes one slot, so "
            "that all runs share one budget."
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
        """Name of this API in errors, e.g. "https://api.partner.example"."""
        url = httpx.URL(self.base_url)
        return f"{url.scheme}://{url.netloc.decode('ascii')}"

    def get_client(self) -> httpx.Client:
        """Return a client with address, timeouts, TLS and static credentials set.

        It has no OAuth 2 tokens: `tasks.api.open_api` fetches them.

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
