"""Every failure of HTTP becomes one of `blocks.errors`, here and nowhere else."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import datetime
from http.client import responses as phrases
from typing import Any, TypedDict

import httpx
import orjson

from blocks.errors import (
    BadPayloadError,
    IntegrationError,
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamRejectedError,
)
from tasks.core.connectors.http.rate_limits import parse_rate_limit, wait_asked_for
from tasks.core.connectors.http.refusal_words import words_of_refusal

# Refusals that mean busy if they say how long to wait: a spent budget, a lock, a key in use.
_BUSY_WHEN_TIMED = {403, 409, 423, 425}


class OutcomeUnknownError(PermanentError):
    """A call may or may not have been carried out, and repeating it could do it twice."""


class Where(TypedDict):
    """What an error says about its call."""

    system: str
    operation: str
    record: str | None


def from_httpx(exc: Exception, where: Where) -> IntegrationError:
    """Return the error for an httpx exception; unmapped exceptions are permanent."""
    if _is_untrusted_certificate(exc):
        return MisconfiguredError(
            "its certificate is not trusted; give the authority's certificate as ca_file", **where
        )
    for kind, mapped, message in _MAPPED:
        if isinstance(exc, kind):
            return mapped(message, **where)
    return PermanentError(f"the request failed ({type(exc).__name__})", **where)


def from_status(
    status: int, headers: Mapping[str, str], body: bytes, where: Where, *, now: datetime
) -> IntegrationError | None:
    """Return the error for a response, or None if it is a success.

    Args:
        status: 100 to 599.
        headers: The response's headers, by name in any case.
        body: The response's body, if it was read; its `errors` and reason are used.
        where: What the error says about the call.
        now: Aware instant.
    """
    if 200 <= status < 300 or status == 304:
        return None
    answered = f"it answered {status} {phrases.get(status, '')}".rstrip()
    if _is_busy(status, headers, now):
        wait_s = wait_asked_for(headers, now=now)
        asks = "" if wait_s is None else f" and asks to wait {wait_s:.0f} s"
        return UpstreamBusyError(f"{answered}{asks}", retry_after_s=wait_s, **where)
    if status == 401:
        return MisconfiguredError(
            f"{answered}: it refuses the credentials; mend them in the block", **where
        )
    if status == 403:
        return MisconfiguredError(
            f"{answered}: the credentials lack the permission; grant it or use others", **where
        )
    if status < 400:
        return MisconfiguredError(
            f"{answered}: it points elsewhere; set the block's base_url to the final address",
            **where,
        )
    if status >= 500:
        return UpstreamFailedError(f"{answered}: the fault is on the other side", **where)
    details = problem_details(headers, body)
    named = f", naming {len(details)} records or fields" if details else ""
    return UpstreamRejectedError(
        f"{answered}{named}; correct the request",
        status=status,
        details=details,
        said=words_of_refusal(headers, body),
        **where,
    )


def problem_details(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, Any], ...]:
    """Return the `errors` of a problem document, one mapping each.

    Source: RFC 9457 §3.2.
    """
    if "json" not in headers.get("content-type", ""):
        return ()
    try:
        errors = orjson.loads(body)["errors"]
    except (ValueError, TypeError, KeyError, IndexError):
        return ()
    if not isinstance(errors, list):
        return ()
    return tuple(error for error in errors if isinstance(error, dict))


def never_left(exc: BaseException | None) -> bool:
    """Return whether the connection failed before anything was sent."""
    return isinstance(exc, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))


def _is_busy(status: int, headers: Mapping[str, str], now: datetime) -> bool:
    if status in (408, 429, 503):
        return True
    if status not in _BUSY_WHEN_TIMED:
        return False
    if "retry-after" in headers:
        return True
    # GitHub answers 403 when the budget is spent.
    rate = parse_rate_limit(headers, now=now)
    return status == 403 and rate is not None and rate.remaining == 0


def _is_untrusted_certificate(exc: BaseException | None) -> bool:
    while exc is not None:
        if isinstance(exc, ssl.SSLCertVerificationError):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


# The first match counts, so special cases come before their base classes.
_MAPPED: tuple[tuple[type[Exception], type[IntegrationError], str], ...] = (
    (
        httpx.ConnectTimeout,
        UnreachableError,
        "no connection within connect_timeout_s; is it up, and is base_url right?",
    ),
    (httpx.PoolTimeout, UnreachableError, "all connections stayed in use"),
    (
        httpx.TimeoutException,
        UnreachableError,
        "it fell silent for longer than read_timeout_s",
    ),
    (
        httpx.ConnectError,
        UnreachableError,
        "no connection; is it up, and is base_url right?",
    ),
    (httpx.ProxyError, UnreachableError, "the proxy refused the connection"),
    (httpx.NetworkError, UnreachableError, "the connection was cut"),
    (httpx.RemoteProtocolError, UnreachableError, "the connection was cut in the middle"),
    (
        httpx.LocalProtocolError,
        MisconfiguredError,
        "the request breaks HTTP; look for line breaks in headers and credentials",
    ),
    (
        httpx.UnsupportedProtocol,
        MisconfiguredError,
        "the address must begin with http:// or https://",
    ),
    (httpx.InvalidURL, MisconfiguredError, "the address is not a URL"),
    (httpx.TooManyRedirects, MisconfiguredError, "it redirects in a circle"),
    (httpx.DecodingError, BadPayloadError, "the answer's compression is damaged"),
)
