"""What headers say of limits, in every form in use."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.connectors.http.rate_limits import (
    Pacer,
    RateLimit,
    parse_http_date,
    parse_rate_limit,
    parse_retry_after,
    wait_asked_for,
)

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
EPOCH = int(NOON.timestamp())
HOSTILE_NAMES = st.sampled_from(
    ["retry-after", "date", "ratelimit", "ratelimit-policy", "ratelimit-limit"]
    + [f"x-ratelimit-{part}" for part in ("limit", "remaining", "reset")]
)
HOSTILE_VALUES = st.one_of(
    st.text(alphabet=st.characters(codec="latin-1")),
    st.from_regex(r"[0-9.eE+\-inaf\"=;,rt ]{0,40}", fullmatch=True),
    st.integers().map(str),
)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("1.5", 1.5),
        ("Sat, 31 Jan 2026 12:00:30 GMT", 30),
        ("Saturday, 31-Jan-26 12:00:30 GMT", 30),
        ("Sat Jan 31 12:00:30 2026", 30),
        ("Sat, 31 Jan 2026 13:00:30 +0100", 30),
        ("Sat, 31 Jan 2026 11:00:00 GMT", 0),
        ("-5", None),
        ("1e3", None),
        ("inf", None),
        ("nan", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        ("9" * 400, None),
        ("Sat, 31 Jan 99999 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(value, seconds):
    """Seconds and HTTP dates are understood, and whatever is neither is ignored."""
    assert parse_retry_after(value, now=NOON) == seconds


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"RateLimit": '"default";r=50;t=30'}, RateLimit(None, 50, 30)),
        ({"RateLimit": '"a,b";r=50;t=30, "burst";r=2;t=1'}, RateLimit(None, 2, 1)),
        ({"RateLimit": '"hour";r=0;t=900, "second";r=0;t=1'}, RateLimit(None, 0, 900)),
        ({"RateLimit": '"default";r=50'}, RateLimit(None, 50, None)),
        ({"RateLimit": "limit=100, remaining=50, reset=30"}, RateLimit(100, 50, 30)),
        (
            {"RateLimit-Limit": "9, 9;w=60", "RateLimit-Remaining": "8", "RateLimit-Reset": "7"},
            RateLimit(9, 8, 7),
        ),
        (
            {
                "X-RateLimit-Limit": "5000",
                "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": str(EPOCH + 90),
            },
            RateLimit(5000, 0, 90),
        ),
        ({"X-RateLimit-Reset": str((EPOCH + 90) * 1000)}, RateLimit(None, None, 90)),
        ({"X-RateLimit-Reset": str(EPOCH - 90)}, RateLimit(None, None, 0)),
        ({"X-Rate-Limit-Remaining": "3"}, RateLimit(None, 3, None)),
        ({"RateLimit-Policy": '"default";q=100;w=60'}, None),
        ({"RateLimit": '"default"'}, None),
        ({"X-RateLimit-Limit": "many"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_rate_limit_is_read_in_all_its_forms(headers, expected):
    """Drafts old and new and the X- headers with deltas, seconds and milliseconds are read."""
    assert parse_rate_limit(httpx.Headers(headers), now=NOON) == expected


def test_retry_after_wins_over_the_reset():
    """Where both are given, Retry-After counts."""
    headers = {"RateLimit": '"default";r=0;t=30', "Retry-After": "5"}
    assert wait_asked_for(httpx.Headers(headers), now=NOON) == 5


def test_reset_counts_only_when_nothing_is_left():
    """A reset is no wait as long as requests are left."""
    spent = httpx.Headers({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"})
    left = httpx.Headers({"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "30"})
    assert (wait_asked_for(spent, now=NOON), wait_asked_for(left, now=NOON)) == (30, None)


def test_dates_are_compared_with_the_clock_of_the_server():
    """A server whose clock is an hour off gets no request an hour late."""
    headers = {
        "Date": "Sat, 31 Jan 2026 13:00:00 GMT",
        "Retry-After": "Sat, 31 Jan 2026 13:00:10 GMT",
    }
    assert wait_asked_for(httpx.Headers(headers), now=NOON) == 10
    headers = {
        "Date": "Sat, 31 Jan 2026 13:00:00 GMT",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(EPOCH + 3610),
    }
    assert parse_rate_limit(httpx.Headers(headers), now=NOON) == RateLimit(None, 0, 10)


@settings(deadline=None)
@given(st.dictionaries(HOSTILE_NAMES, HOSTILE_VALUES))
def test_no_header_breaks_the_reading(headers):
    """Whatever a server writes, the outcome is a finite wait of at least zero, or none."""
    received = httpx.Headers(
        [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    )
    wait = wait_asked_for(received, now=NOON)
    assert wait is None or (0 <= wait < math.inf)
    rate = parse_rate_limit(received, now=NOON)
    for part in (rate.limit, rate.remaining, rate.reset_in_s) if rate else ():
        assert part is None or 0 <= part < math.inf


@settings(deadline=None)
@given(st.integers(0, 3_000_000_000))
def test_http_dates_read_back_as_written(epoch_s):
    """Every date in the preferred form reads back to the second."""
    date = datetime.fromtimestamp(epoch_s, UTC)
    assert parse_http_date(date.strftime("%a, %d %b %Y %H:%M:%S GMT")) == date


def test_other_zones_become_utc():
    """An HTTP date with an offset is the same instant in UTC."""
    berlin = datetime(2026, 1, 31, 13, tzinfo=timezone(timedelta(hours=1)))
    assert parse_http_date("Sat, 31 Jan 2026 13:00:00 +0100") == berlin


def test_pacer_holds_back_when_the_budget_is_spent(fake_time):
    """The last request left goes out at once, the next one waits for the reset."""
    pacer = Pacer(fake_time.clock)
    pacer.observe(RateLimit(100, 1, 30))
    assert (pacer.take(), pacer.take()) == (0, 30)
    fake_time.sleep(30)
    assert pacer.take() == 0


def test_late_answer_does_not_give_budget_back(fake_time):
    """Answers that overtake each other leave the smaller number of requests."""
    pacer = Pacer(fake_time.clock)
    pacer.observe(RateLimit(100, 0, 30))
    pacer.observe(RateLimit(100, 5, 30))
    assert pacer.take() == 30


def test_new_window_gives_new_budget(fake_time):
    """An answer of a later window counts as it is."""
    pacer = Pacer(fake_time.clock)
    pacer.observe(RateLimit(100, 0, 5))
    fake_time.sleep(6)
    pacer.observe(RateLimit(100, 7, 60))
    assert pacer.take() == 0


def test_pacer_ignores_what_it_cannot_use(fake_time):
    """Without a number left or a reset there is nothing to wait for."""
    pacer = Pacer(fake_time.clock)
    for rate in (None, RateLimit(100, None, 30), RateLimit(100, 0, None)):
        pacer.observe(rate)
    assert pacer.take() == 0
