"""Removes secrets from what is logged about a request."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import httpx

MASK = "***"
_SECRET_NAME = re.compile(
    r"auth|cookie|credential|key|pass|secret|session|signature|token|^sig$|^code$", re.IGNORECASE
)
_HARMLESS_NAMES = {"idempotency-key"}


def redact_url(url: httpx.URL | str) -> str:
    """Return the URL without user, password, fragment and the values of query parameters."""
    try:
        parsed = httpx.URL(url)
        names = [name for name, _ in parsed.params.multi_items()]
        bare = parsed.copy_with(userinfo=b"", query=None, fragment=None)
    except (httpx.InvalidURL, ValueError):
        return MASK
    query = "&".join(f"{name}={MASK}" for name in names)
    return f"{bare}?{query}" if query else str(bare)


def redact_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with the values of those whose name suggests a secret masked."""
    return {
        name: MASK if _SECRET_NAME.search(name) and name.lower() not in _HARMLESS_NAMES else value
        for name, value in headers.items()
    }


def redact_httpx_log() -> None:
    """Keep queries out of the line that httpx logs for each request."""
    logging.getLogger("httpx").addFilter(_redact_record)


def _redact_record(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(
            redact_url(arg) if isinstance(arg, httpx.URL) else arg for arg in record.args
        )
    return True
