"""Reads an API's rate limit headers, in all common forms, and keeps requests within them."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tasks.core.connectors.http.field_values import parameters, split_members

_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?", re.ASCII)
_PREFIXES = ("ratelimit", "x-ratelimit", "x-rate-limit")
# A smaller reset is a number of seconds from now; a larger one is an instant, in (milli)seconds.
_LARGEST_DELTA = 1e6
_SMALLEST_EPOCH_MS = 1e12
_SAME_WINDOW_S = 1


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The rest of a budget of requests.

    Attributes:
        limit: Requests per window.
        remaining: Requests left in this window.
        reset_in_s: Seconds until the window ends, counted from the response.
    """

    limit: int | None
    remaining: int | None
    reset_in_s: float | None


def parse_retry_after(value: str, *, now: datetime) -> float | None:
    """Return the seconds to wait, at least 0; None if the value is invalid.

    Args:
        value: A number of seconds (fractions are accepted), or an HTTP date.
        now: Aware instant at which it was sent.

    Source: RFC 9110 §10.2.3.
    """
    seconds = _number(value)
    if seconds is not None:
        return seconds
    date = parse_http_date(value)
    return None if date is None else max(0.0, (date - now).total_seconds())


def parse_http_date(value: str) -> datetime | None:
    """Read an HTTP date in any of its three forms, as aware UTC."""
    try:
        date = parsedate_to_datetime(value)
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def parse_rate_limit(headers: Mapping[str, str], *, now: datetime) -> RateLimit | None:
    """Read the RateLimit headers of a response; None if there are none that can be read.

    Understood are `RateLimit: "default";r=50;t=30` (the policy with the least left counts),
    `RateLimit: limit=100, remaining=50, reset=30`, and the three headers `-Limit`,
    `-Remaining` and `-Reset` under `RateLimit`, `X-RateLimit` and `X-Rate-Limit`, with a reset
    in seconds from now or as an instant in seconds or milliseconds. Salesforce reports how many
    of a day's calls were made, `api-usage=18/15000`, but not when more are allowed.

    Args:
        headers: As httpx.Headers, which takes names in any case and lists them in lower case.
        now: Aware instant at which they arrived; their own Date takes precedence.

    Source: draft-ietf-httpapi-ratelimit-headers-03 to -10; GitHub's REST API.
    """
    if not any("limit" in name for name in headers):
        return None  # as with most responses
    structured = _structured(headers.get("ratelimit", ""))
    return (
        structured
        or _separate(headers, now=_server_now(headers, now))
        or _of_salesforce(headers.get("sforce-limit-info", ""))
    )


def wait_asked_for(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Return the requested wait in seconds: Retry-After, else the reset of a spent budget."""
    asked = parse_retry_after(headers.get("retry-after", ""), now=_server_now(headers, now))
    if asked is not None:
        return asked
    rate = parse_rate_limit(headers, now=now)
    return rate.reset_in_s if rate is not None and rate.remaining == 0 else None


class Pacer:
    """Delays requests once an API reports its budget as spent; shared by threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._remaining: int | None = None
        self._reset_at = -math.inf

    def take(self) -> float:
        """Take one request from the budget; return the seconds to wait before making it."""
        with self._lock:
            wait_s = self._reset_at - self._clock()
            if self._remaining is None or wait_s <= 0:
                self._remaining = None
                return 0
            if self._remaining > 0:
                self._remaining -= 1
                return 0
            return wait_s

    def observe(self, rate: RateLimit | None) -> None:
        """Update the budget from a response; responses may arrive out of order."""
        if rate is None or rate.remaining is None or rate.reset_in_s is None:
            return
        with self._lock:
            reset_at = self._clock() + rate.reset_in_s
            same_window = abs(reset_at - self._reset_at) < _SAME_WINDOW_S
            if not same_window or self._remaining is None:
                self._remaining = rate.remaining
            else:
                self._remaining = min(self._remaining, rate.remaining)
            self._reset_at = reset_at


def _server_now(headers: Mapping[str, str], now: datetime) -> datetime:
    """Return the server's time, in which it writes instants; ours if it does not say."""
    return parse_http_date(headers.get("date", "")) or now


def _structured(value: str) -> RateLimit | None:
    members = [list(split_members(member, ";")) for member in split_members(value, ",")]
    policies = [parameters(iter(rest)) for _, *rest in members]
    rates = [
        RateLimit(limit=None, remaining=_count(policy["r"]), reset_in_s=_number(policy.get("t")))
        for policy in policies
        if _count(policy.get("r")) is not None
    ]
    if rates:
        return min(rates, key=lambda rate: (rate.remaining or 0, -(rate.reset_in_s or 0)))
    dictionary = parameters(member[0] for member in members)
    if _count(dictionary.get("remaining")) is None:
        return None
    return RateLimit(
        limit=_count(dictionary.get("limit")),
        remaining=_count(dictionary.get("remaining")),
        reset_in_s=_number(dictionary.get("reset")),
    )


def _separate(headers: Mapping[str, str], *, now: datetime) -> RateLimit | None:
    for prefix in _PREFIXES:
        rate = RateLimit(
            limit=_count(headers.get(f"{prefix}-limit")),
            remaining=_count(headers.get(f"{prefix}-remaining")),
            reset_in_s=_reset(headers.get(f"{prefix}-reset"), now=now),
        )
        if rate != RateLimit(None, None, None):
            return rate
    return None


def _of_salesforce(value: str) -> RateLimit | None:
    usage = re.search(r"api-usage=([0-9]{1,15})/([0-9]{1,15})", value)
    if usage is None:
        return None
    used, limit = int(usage[1]), int(usage[2])
    return RateLimit(limit=limit, remaining=max(0, limit - used), reset_in_s=None)


def _reset(value: str | None, *, now: datetime) -> float | None:
    number = _number(value)
    if number is None or number < _LARGEST_DELTA:
        return number
    instant_s = number / 1000 if number >= _SMALLEST_EPOCH_MS else number
    return max(0.0, instant_s - now.timestamp())


def _count(value: str | None) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _number(value: str | None) -> float | None:
    """Return the number a value starts with; `100, 100;w=60` lists policies after it."""
    first = re.split(r"[,;]", value or "", maxsplit=1)[0].strip()
    return float(first) if _NUMBER.fullmatch(first) else None
