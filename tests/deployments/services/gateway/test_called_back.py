"""Callback addresses at a gateway in this process, whose name server the test is."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import pytest

from deployments.services.gateway.request_reply import RequestReply
from tasks.core.intake.inbox.reply import Reply
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.settlement import Settlement
from tasks.core.intake.inbox.store import Inbox

CALLED_BACK = {"X-Callback-Url": "https://partner.example/results"}
AT_ONCE = {"Prefer": "respond-async"}


class NameServer:
    """Answers when it is told to."""

    def __init__(self):
        self.asked = 0
        self.answers = threading.Event()

    def resolve(self, _host, _port):
        self.asked += 1
        self.answers.wait(30)
        return ["93.184.216.34"]


@pytest.fixture
def name_server():
    server = NameServer()
    yield server
    server.answers.set()


@pytest.fixture
async def quotes(start, engine, name_server):
    """An endpoint whose callers wait and may leave an address, few of them at once."""
    callback = {"header": "X-Callback-Url", "signed_by": "callback-signature/shop"}
    waits = {"deadline_s": 0.05, "max_waiting_per_caller": 10, "callback": callback}
    endpoints = {
        "quotes": {"path": "/quotes", "scheme": "none", "request_reply": waits},
        "patient": {
            "path": "/patient",
            "scheme": "none",
            "request_reply": waits | {"deadline_s": 60},
        },
    }
    request_reply = RequestReply(engine, resolve=name_server.resolve)
    return await start(endpoints, request_reply=request_reply)


async def until(condition):
    while not condition():  # noqa: ASYNC110 - the condition is another thread's
        await asyncio.sleep(0.002)


async def test_names_that_do_not_resolve_hold_up_nobody_else(quotes, name_server):
    """While the name server is silent, threads for everything else are free."""
    headers = CALLED_BACK | AT_ONCE
    asking = [
        asyncio.create_task(quotes.client.post("/quotes", json=each, headers=headers))
        for each in range(10)
    ]
    await until(lambda: name_server.asked)
    others = [asyncio.to_thread(lambda: None) for _ in range(50)]
    await asyncio.wait_for(asyncio.gather(*others), 20)
    name_server.answers.set()
    assert {reply.status_code for reply in await asyncio.gather(*asking)} == {202}


@pytest.mark.parametrize("preference", [{}, AT_ONCE], ids=["waiting", "at once"])
async def test_no_caller_has_more_names_looked_up_than_it_may_wait_for(
    quotes, name_server, preference
):
    """Beyond that it is sent away; without an address to look up it is not."""
    asking = [
        asyncio.create_task(
            quotes.client.post("/quotes", json=each, headers=CALLED_BACK | preference)
        )
        for each in range(12)
    ]
    await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    assert (await quotes.client.post("/quotes", json=1, headers=AT_ONCE)).status_code == 202
    name_server.answers.set()
    statuses = sorted(reply.status_code for reply in await asyncio.gather(*asking))
    assert statuses == [202] * 10 + [503] * 2


async def test_whoever_asks_again_and_does_not_wait_is_called_back(quotes, engine, name_server):
    """A caller whose gateway died asks again with its key and hangs up: its result is sent."""
    name_server.answers.set()
    headers = CALLED_BACK | {"Idempotency-Key": "k"}
    first = asyncio.create_task(quotes.client.post("/patient", json=1, headers=headers))
    await until(lambda: quotes.rows() and quotes.app._request_reply.waiters._waiting)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    again = await quotes.client.post("/patient", json=1, headers=headers | AT_ONCE)
    assert again.status_code == 202
    inbox = Inbox(engine)
    [delivery] = inbox.lease("shop", LeaseOwner("run"), limit=9)
    inbox.settle([Settlement(delivery, "done", reply=Reply.json(1))])
    [callback] = inbox.lease("callbacks", LeaseOwner("run"), limit=9)
    assert callback.json()["request"] in again.headers["location"]
    inbox.close()
