"""Calls to one API, with the same limits, retries, tokens and errors for every integration."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from blocks.errors import (
    BadPayloadError,
    MisconfiguredError,
    PermanentError,
    TransientError,
    UnreachableError,
    UpstreamBusyError,
)
from tasks.core import threads
from tasks.core.connectors.http.auth import OAuth2, TokenRequest
from tasks.core.connectors.http.errors import (
    OutcomeUnknownError,
    Where,
    from_httpx,
    from_status,
    never_left,
)
from tasks.core.connectors.http.rate_limits import Pacer, parse_rate_limit
from tasks.core.connectors.http.redaction import redact_httpx_log, redact_url
from tasks.core.connectors.http.retrying import RetryPolicy, is_repeatable

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Bounds of one response.

    Attributes:
        max_response_bytes: After decompression.
        total_timeout_s: From sending the request to the last byte; the client's own timeouts
            bound connecting and each silence.
    """

    max_response_bytes: int = 64 * 1024 * 1024
    total_timeout_s: float = 300


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """A successful response, read to its end.

    Attributes:
        status: 200 to 299, or 304.
        headers: By name, in any case.
        url: Where it came from.
        content: The decompressed body.
    """

    status: int
    headers: httpx.Headers = field(repr=False)
    url: httpx.URL = field(repr=False)
    content: bytes = field(repr=False)
    where: Where = field(repr=False)

    def json(self) -> Any:
        """Return the body as JSON; None if it is empty.

        Raises:
            BadPayloadError: It is not JSON.
        """
        if not self.content:
            return None
        try:
            return orjson.loads(self.content)
        except orjson.JSONDecodeError as exc:
            kind = self.headers.get("content-type", "no content type").partition(";")[0]
            raise BadPayloadError(
                f"the answer ({kind}, {len(self.content)} bytes) is not JSON: {exc.msg} at line "
                f"{exc.lineno}; check base_url and the path",
                **self.where,
            ) from exc


class ApiClient:
    """One API over one connection pool; threads may share it.

    Args:
        http: With base URL, timeouts, TLS and static credentials set; the caller closes it.
        system: Name of the API in errors.
        oauth: Source of bearer tokens, if the API needs them.
        retries: Which failures are retried, and when.
        limits: Bounds of one response.
        before_request: Called before each request, e.g. to wait for a shared budget.
        log: Logs each retry and each wait.
        sleep: Waits for that many seconds.
        clock: Monotonic seconds.
        now: Returns the aware instant.
    """

    def __init__(
        self,
        http: httpx.Client,
        *,
        system: str,
        oauth: OAuth2 | None = None,
        retries: RetryPolicy | None = None,
        limits: ApiLimits | None = None,
        before_request: Callable[[], None] | None = None,
        log: logging.Logger | logging.LoggerAdapter[Any] = _log,
        sleep: Callable[[float], None] = threads.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.system = system
        self._http = http
        self._oauth = oauth
        self._retries = retries or RetryPolicy()
        self._limits = limits or ApiLimits()
        self._before_request = before_request
        self._log = log
        self._sleep = sleep
        self._clock = clock
        self._now = now
        self._pacer = Pacer(clock)
        redact_httpx_log()

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        repeatable: bool | None = None,
        operation: str | None = None,
        record: str | None = None,
    ) -> ApiResponse:
        """Make one request, retry it if needed, and return its successful response.

        A request that is not safe to repeat (a POST without key) is retried only if it certainly
        had no effect: nothing was sent, or it was refused.

        Args:
            method: The HTTP method.
            path: Relative to the base URL, or a whole URL of the same origin, as next links are.
            params: Added to the query; None values are left out.
            json: The body, as JSON; Decimal becomes text.
            content: The raw body, instead of `json`; JSON unless `headers` say otherwise.
            headers: Extra headers.
            idempotency_key: The same for every attempt at the same effect.
            repeatable: Whether doing it twice has the same effect as once; by default method and
                key decide.
            operation: Name of the call in errors; default: method and path. Give it where the
                path holds a secret.
            record: The record concerned, for errors.

        Raises:
            TransientError: The attempts are used up, or the API asked for too long a wait.
            OutcomeUnknownError: It may have been carried out and cannot be repeated.
            MisconfiguredError: Credentials, permission or address are wrong.
            UpstreamRejectedError: Any other 4xx; `status` and `details` say more.
            BadPayloadError: The response is too large or damaged.
        """
        where = Where(
            system=self.system,
            operation=operation or f"{method} {_shown(path)}",
            record=record,
        )
        all_headers = dict(headers or {})
        if idempotency_key is not None:
            all_headers["Idempotency-Key"] = idempotency_key
        if json is not None:
            content = orjson.dumps(json, default=str)
        request = self._request(method, path, params, content, all_headers, where)
        if repeatable is None:
            repeatable = is_repeatable(method, idempotency_key)

        def tell(error: BaseException, wait_s: float, attempt: int) -> None:
            self._log.warning(
                "%s; trying again in %.1f s (attempt %d of %d)",
                error,
                wait_s,
                attempt + 1,
                self._retries.max_attempts,
            )

        retrying = self._retries.retrying(sleep=self._sleep, before_wait=tell)
        return retrying(self._attempt, request, repeatable=repeatable, where=where)

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        content: bytes | None,
        headers: Mapping[str, str],
        where: Where,
    ) -> httpx.Request:
        given = {name: value for name, value in (params or {}).items() if value is not None}
        try:
            url: httpx.URL | str = path
            if given and "?" in path:  # build_request would replace the path's own query
                url, given = httpx.URL(path).copy_merge_params(given), {}
            request = self._http.build_request(
                method, url, params=given or None, content=content, headers=headers
            )
        except (httpx.InvalidURL, ValueError) as exc:
            raise from_httpx(exc, where) from exc
        if content is not None:
            request.headers.setdefault("Content-Type", "application/json")
        if _origin(request.url) != _origin(self._http.base_url):
            # The credentials would go there.
            raise BadPayloadError(
                f"the address leads to another origin ({_origin(request.url)}); refused", **where
            )
        return request

    def _attempt(self, request: httpx.Request, *, repeatable: bool, where: Where) -> ApiResponse:
        self._keep_pace(where)
        token = self._authorize(request)
        response = self._send(request, repeatable=repeatable, where=where)
        if response.status == 401 and self._oauth is not None and token is not None:
            token = self._oauth.replace(token, self._fetch_token)
            request.headers["Authorization"] = f"Bearer {token}"
            response = self._send(request, repeatable=repeatable, where=where)
        error = from_status(
            response.status, response.headers, response.content, where, now=self._now()
        )
        if error is None:
            return response
        refused = response.status < 500 and response.status != 408
        if isinstance(error, TransientError) and not repeatable and not refused:
            raise _unknown(error, where) from error
        raise error

    def _send(self, request: httpx.Request, *, repeatable: bool, where: Where) -> ApiResponse:
        try:
            response = self._exchange(request, where)
        except UnreachableError as exc:
            if repeatable or never_left(exc.__cause__):
                raise
            raise _unknown(exc, where) from exc
        self._pacer.observe(parse_rate_limit(response.headers, now=self._now()))
        return response

    def _keep_pace(self, where: Where) -> None:
        if self._before_request is not None:
            self._before_request()
        wait_s = self._pacer.take()
        if wait_s > self._retries.max_retry_after_s:
            raise UpstreamBusyError(
                f"its budget of requests is spent for {wait_s:.0f} s", retry_after_s=wait_s, **where
            )
        if wait_s > 0:
            self._log.info("%s: waiting %.1f s for its rate limit", self.system, wait_s)
            self._sleep(wait_s)

    def _authorize(self, request: httpx.Request) -> str | None:
        if self._oauth is None:
            return None
        token = self._oauth.token(self._fetch_token)
        request.headers["Authorization"] = f"Bearer {token}"
        return token

    def _fetch_token(self, token_request: TokenRequest) -> bytes:
        where = Where(system=self.system, operation="fetch token", record=None)
        request = httpx.Request(
            "POST",
            token_request.url,
            data=dict(token_request.form),
            headers=dict(token_request.headers),
            extensions={"timeout": self._http.timeout.as_dict()},
        )
        response = self._exchange(request, where)
        if response.status in (400, 401, 403):
            raise MisconfiguredError(
                f"the token endpoint answered {response.status}{_oauth_error(response.content)}; "
                "check client, secret, scope and refresh token in the block",
                **where,
            )
        error = from_status(
            response.status, response.headers, response.content, where, now=self._now()
        )
        if error is not None:
            raise error
        return response.content

    def _exchange(self, request: httpx.Request, where: Where) -> ApiResponse:
        """Send one request and return its response, whatever its status."""
        deadline = self._clock() + self._limits.total_timeout_s
        try:
            response = self._http.send(
                request,
                stream=True,
                follow_redirects=False,
                # The client's own credentials must not reach the token endpoint.
                auth=httpx.USE_CLIENT_DEFAULT if self._oauth is None else None,
            )
            try:
                content = self._read(response, deadline, where)
            finally:
                response.close()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as exc:
            raise from_httpx(exc, where) from exc
        return ApiResponse(response.status_code, response.headers, response.url, content, where)

    def _read(self, response: httpx.Response, deadline: float, where: Where) -> bytes:
        limit = self._limits.max_response_bytes
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > limit:
                if response.is_error:
                    return b""
                raise BadPayloadError(
                    f"the answer is larger than max_response_bytes ({limit}); ask for less at a "
                    "time or raise it",
                    **where,
                )
            if self._clock() > deadline:
                raise UnreachableError(
                    f"the answer took longer than {self._limits.total_timeout_s:g} s", **where
                )
        return bytes(content)


def path_segment(value: str) -> str:
    """Quote a business key as one path segment, so that no key changes where a call goes."""
    if value in ("", ".", ".."):
        raise PermanentError(
            f"{value!r} cannot be part of an address; correct the record's key",
            system="HTTP",
            operation="build address",
            record=value,
        )
    return quote(value, safe="")


def _unknown(error: TransientError, where: Where) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"{error.message}; it may have been carried out nevertheless, so it is not repeated: "
        "check there before running it again, and give an idempotency_key if the API takes one",
        **where,
    )


def _shown(path: str) -> str:
    return (redact_url(path) if ":" in path else path).partition("?")[0]


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _oauth_error(body: bytes) -> str:
    """Return the token endpoint's error code, which comes from a short list without secrets."""
    try:
        code = orjson.loads(body)["error"]
    except (ValueError, TypeError, KeyError, IndexError):
        return ""
    return f" ({code})" if isinstance(code, str) and code.isidentifier() and len(code) < 40 else ""
