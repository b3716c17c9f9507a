"""A clock that only moves when somebody sleeps, and clients that go by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tasks.core.connectors.http.client import ApiClient

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class FakeTime:
    """Time that passes by sleeping."""

    def __init__(self):
        self.waits = []

    def clock(self):
        return sum(self.waits)

    def sleep(self, seconds):
        self.waits.append(seconds)

    def now(self):
        return NOON + timedelta(seconds=sum(self.waits))


@pytest.fixture
def fake_time():
    return FakeTime()


@pytest.fixture
def client_of(fake_time):
    """Makes a client of a URL, or of a function from request to response."""
    opened = []

    def make(target, **options):
        if isinstance(target, str):
            http = httpx.Client(base_url=target, timeout=5)
        else:
            transport = httpx.MockTransport(target)
            http = httpx.Client(base_url="https://api.example/v1", transport=transport)
        opened.append(http)
        return ApiClient(
            http,
            **{
                "system": "https://api.example",
                "sleep": fake_time.sleep,
                "clock": fake_time.clock,
                "now": fake_time.now,
                **options,
            },
        )

    yield make
    for http in opened:
        http.close()
