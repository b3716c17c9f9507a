"""OAuth 2 bearer tokens: fetched when needed, renewed before they expire, shared by threads."""

from __future__ import annotations

import base64
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from urllib.parse import quote_plus

import orjson

from blocks.errors import MisconfiguredError
from tasks.core.connectors.http.redaction import redact_url

_RENEW_EARLIER_S = 30


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A form to post to the token endpoint, which responds with JSON."""

    url: str
    form: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


class _Token(NamedTuple):
    value: str
    renew_at: float


class OAuth2:
    """Tokens from client credentials, or from a refresh token if there is one.

    Args:
        token_url: The token endpoint.
        client_id: The client id.
        client_secret: The client secret.
        refresh_token: If given, the refresh token grant is used.
        scope: Space-separated, as the endpoint defines it.
        parameters: Extra form fields, e.g. {"audience": "…"}.
        client_auth: Whether name and secret go into the Authorization header or the form.
        on_refresh_token: Called with the new refresh token when the endpoint rotates it; the old
            one may be invalid from then on.
        clock: Monotonic seconds.

    Source: RFC 6749 §2.3.1, §4.4, §5, §6.
    """

    def __init__(
        self,
        token_url: str,
        *,
        client_id: str,
        client_secret: str,
        refresh_token: str | None = None,
        scope: str | None = None,
        parameters: Mapping[str, str] | None = None,
        client_auth: Literal["header", "form"] = "header",
        on_refresh_token: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._token_url = token_url
        self._client_id = client_id
        self._client_secret = client_secret
        self._refresh_token = refresh_token
        self._scope = scope
        self._parameters = dict(parameters or {})
        self._client_auth = client_auth
        self._on_refresh_token = on_refresh_token
        self._clock = clock
        self._lock = threading.Lock()
        self._token: _Token | None = None

    def token(self, fetch: Callable[[TokenRequest], bytes]) -> str:
        """Return a token that is not about to expire.

        Args:
            fetch: Posts a form and returns the response body; its errors propagate.
        """
        with self._lock:
            if self._token is None or self._clock() >= self._token.renew_at:
                self._token = self._fetched(fetch)
            return self._token.value

    def replace(self, refused: str, fetch: Callable[[TokenRequest], bytes]) -> str:
        """Return another token than the refused one; threads that ask at once share one fetch."""
        with self._lock:
            if self._token is None or self._token.value == refused:
                self._token = self._fetched(fetch)
            return self._token.value

    def _fetched(self, fetch: Callable[[TokenRequest], bytes]) -> _Token:
        try:
            answer = orjson.loads(fetch(self._request()))
            value = answer["access_token"]
            expires_in = answer.get("expires_in")
            lifetime_s = math.inf if expires_in is None else float(expires_in)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as exc:
            raise MisconfiguredError(
                "the token endpoint's answer holds no access_token; check token_url",
                system=redact_url(self._token_url),
                operation="fetch token",
            ) from exc
        self._keep_rotated(answer.get("refresh_token"))
        # A token whose lifetime is shorter than the margin is used for half of it.
        margin_s = min(_RENEW_EARLIER_S, lifetime_s / 2)
        return _Token(str(value), self._clock() + lifetime_s - margin_s)

    def _request(self) -> TokenRequest:
        form = dict(self._parameters)
        if self._refresh_token is None:
            form["grant_type"] = "client_credentials"
        else:
            form |= {"grant_type": "refresh_token", "refresh_token": self._refresh_token}
        if self._scope:
            form["scope"] = self._scope
        headers = {"Accept": "application/json"}
        if self._client_auth == "form":
            form |= {"client_id": self._client_id, "client_secret": self._client_secret}
        else:
            pair = f"{quote_plus(self._client_id)}:{quote_plus(self._client_secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return TokenRequest(self._token_url, form, headers)

    def _keep_rotated(self, refresh_token: object) -> None:
        if self._refresh_token is None or not isinstance(refresh_token, str):
            return
        if refresh_token != self._refresh_token:
            self._refresh_token = refresh_token
            if self._on_refresh_token is not None:
                self._on_refresh_token(refresh_token)
