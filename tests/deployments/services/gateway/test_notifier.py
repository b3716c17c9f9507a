"""The notifier notifies once for many, not at all for a run at work, and never gives up."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from blocks.errors import MisconfiguredError, UnreachableError
from deployments.services.gateway.metrics import Metrics
from deployments.services.gateway.notifier import Notifier, PrefectEvents


class Time:
    """Sleep that ends when the test lets time pass."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._passed = asyncio.Semaphore(0)
        self._asked = asyncio.Semaphore(0)

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        self._asked.release()
        await self._passed.acquire()

    async def someone_sleeps(self) -> None:
        await asyncio.wait_for(self._asked.acquire(), 5)

    async def pass_on(self) -> None:
        self._passed.release()
        await asyncio.sleep(0)


class Prefect:
    """Takes events, or does not."""

    def __init__(self) -> None:
        self.notified: list[str] = []
        self.fails = False

    async def post(self, integration: str) -> None:
        if self.fails:
            raise httpx.ConnectError("down")
        self.notified.append(integration)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def prefect() -> Prefect:
    return Prefect()


@pytest.fixture
async def runs(time, prefect):
    """How many runs are at work; the notifier hangs beside it."""
    runs = {"shop": 0}

    def count(integration: str) -> int:
        if runs.get("broken"):
            raise UnreachableError("down", system="inbox", operation="look")
        return runs.get(integration, 0)

    runs["notifier"] = Notifier(prefect.post, count, Metrics(), sleep=time.sleep)
    yield runs
    await runs["notifier"].close(timeout_s=0)


async def test_many_deliveries_notify_once(runs, prefect, time):
    """A hundred deliveries at once are one event; what comes meanwhile is the next one."""
    for _ in range(100):
        runs["notifier"].notify("shop")
    await time.someone_sleeps()
    assert prefect.notified == ["shop"]
    runs["notifier"].notify("shop")
    assert prefect.notified == ["shop"]
    await time.pass_on()
    await time.someone_sleeps()
    assert prefect.notified == ["shop", "shop"]


async def test_nothing_more_is_sent_when_nothing_more_came(runs, prefect, time):
    """After its pause an idle notifier is still, and the next delivery notifies at once again."""
    runs["notifier"].notify("shop")
    await time.someone_sleeps()
    await time.pass_on()
    await asyncio.sleep(0.01)
    assert prefect.notified == ["shop"]
    runs["notifier"].notify("shop")
    await time.someone_sleeps()
    assert prefect.notified == ["shop", "shop"]
    assert time.asked == [1.0, 1.0]


async def test_a_run_at_work_needs_no_notification(runs, prefect, time):
    """While a run takes the deliveries nobody is notified; when it has gone somebody is."""
    runs["shop"] = 1
    runs["notifier"].notify("shop")
    await time.someone_sleeps()
    assert prefect.notified == []
    runs["shop"] = 0
    runs["notifier"].notify("shop")
    await time.pass_on()
    await time.someone_sleeps()
    assert prefect.notified == ["shop"]


async def test_integrations_are_notified_apart(runs, prefect, time):
    """One integration's pause does not keep another waiting."""
    for name in ("shop", "crm"):
        runs["notifier"].notify(name)
        await time.someone_sleeps()
    assert prefect.notified == ["shop", "crm"]


async def test_while_prefect_is_down_it_tries_on_more_and_more_seldom(runs, prefect, time):
    """Failures are not forgotten: the notification comes when Prefect is back."""
    prefect.fails = True
    runs["notifier"].notify("shop")
    for _ in range(7):
        await time.someone_sleeps()
        await time.pass_on()
    await time.someone_sleeps()
    prefect.fails = False
    await time.pass_on()
    await time.someone_sleeps()
    assert time.asked[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert prefect.notified == ["shop"]


async def test_closing_waits_for_no_pause_and_notifies_of_what_waits(runs, prefect, time):
    """What came during a pause is notified on the way out, at once."""
    runs["notifier"].notify("shop")
    await time.someone_sleeps()
    runs["notifier"].notify("shop")
    await asyncio.wait_for(runs["notifier"].close(), 1.5)
    assert prefect.notified == ["shop", "shop"]


async def test_an_inbox_that_cannot_be_asked_is_notified_of(runs, prefect, time):
    """Better a notification too many than none."""
    runs["broken"] = 1
    runs["notifier"].notify("shop")
    await time.someone_sleeps()
    assert prefect.notified == ["shop"]


async def test_prefect_is_sent_events_with_the_configured_credentials():
    """The event goes to the API's events route, with the key or the user that is configured."""
    seen: list[bytes] = []

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        seen.append(head + await reader.readexactly(length))
        status = b"204 No Content" if b"authorization" in head.lower() else b"401 Unauthorized"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api/"}
    for credentials, header in (
        ({"PREFECT_API_KEY": "key"}, b"authorization: bearer key"),
        ({"PREFECT_API_AUTH_STRING": "user:pass"}, b"authorization: basic dxnlcjpwyxnz"),
    ):
        events = PrefectEvents({**url, **credentials})
        await events.post("shop")
        await events.close()
        head, _, body = seen.pop().partition(b"\r\n\r\n")
        assert head.startswith(b"POST /api/events ")
        assert header in head.lower()
        (event,) = json.loads(body)
        assert event["resource"]["prefect.resource.id"] == "inbox.shop"
    events = PrefectEvents(url)
    with pytest.raises(httpx.HTTPStatusError):
        await events.post("shop")
    await events.close()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    "url",
    [
        "http://prefect:${PORT}/api",
        "prefect:4200/api",
        "http:///api",
        "http://prefect:99999/api",
        "",
    ],
)
def test_an_address_of_prefect_that_is_none_is_refused_at_once(url):
    """Nothing starts that could not notify, and the message names the variable."""
    with pytest.raises(MisconfiguredError, match="PREFECT_API_URL"):
        PrefectEvents({"PREFECT_API_URL": url})
