"""Callers that wait at gateways of their own processes, on sockets, answered by an inbox's claimer.

The claimer in this process does to the inbox what a flow does; whole flows stand in `tests/flows`.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from sandbox.gateway_process import RunningGateway, running_gateway
from tasks.core.intake.inbox.delivery import Delivery
from tasks.core.intake.inbox.operations import DeliveryFilter, InboxOperations
from tasks.core.intake.inbox.reply import Reply
from tasks.core.intake.inbox.rows import LeaseOwner
from tasks.core.intake.inbox.settlement import Settlement
from tasks.core.intake.inbox.store import Inbox
from tasks.core.intake.request_reply.requests import Progress, Requests
from tasks.core.state.database import open_database

KEY = {"X-API-Key": "secret"}
DECLARED = """
integration: shop
endpoints:
  quick:
    path: /quick
    scheme: api-key
    secrets: {env: SECRET}
    request_reply: {deadline_s: 120}
  short:
    path: /short
    scheme: api-key
    secrets: {env: SECRET}
    synchronous:
      deadline_s: 0.3
      callback: {header: X-Callback-Url, field: reply.to, signed_by: callback-signature/shop}
  narrow:
    path: /narrow
    scheme: api-key
    secrets: {env: SECRET}
    request_reply: {deadline_s: 20, max_waiting: 3, max_waiting_per_caller: 2}
  open:
    path: /open
    scheme: none
    request_reply: {deadline_s: 20, max_waiting: 3, max_waiting_per_caller: 2}
  cancelling:
    path: /cancelling
    scheme: api-key
    secrets: {env: SECRET}
    request_reply: {deadline_s: 20, cancel_when_caller_leaves: true}
  signed:
    path: /signed
    scheme: standard-webhooks
    secrets: {env: SIGNING}
    request_reply: {deadline_s: 120}
"""
SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Flow:
    """Takes requests from the inbox and answers them, as a flow's run does.

    Attributes:
        taken: The deliveries, in order.
        reply: What to answer; None leaves a request under way.
    """

    engine: Any
    taken: list[Delivery] = field(default_factory=list)
    reply: Callable[[Delivery], Reply | None] = lambda delivery: Reply.json(delivery.json())

    def __post_init__(self) -> None:
        self.inbox = Inbox(self.engine)
        self.requests = Requests(self.engine)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def settle(self, delivery: Delivery, reply: Reply, status: Any = "done") -> None:
        self.inbox.settle([Settlement(delivery, status, reply=reply)])

    def wait_for(self, count: int) -> list[Delivery]:
        """The requests, once so many were taken."""
        while len(self.taken) < count:
            time.sleep(0.005)
        return self.taken

    def stop(self) -> None:
        self.over.set()
        self.thread.join()

    def _work(self) -> None:
        while not self.over.wait(0.01):
            for delivery in self.inbox.lease("shop", LeaseOwner("run-1"), limit=50):
                self.taken.append(delivery)
                reply = self.reply(delivery)
                if reply is not None:
                    self.settle(delivery, reply)


@contextmanager
def gateway_process(folder: Path, database_url: str) -> Iterator[RunningGateway]:
    """A gateway with the endpoints declared above."""
    folder.mkdir(exist_ok=True)
    (folder / "integration.yaml").write_text(DECLARED)
    environment = {
        "INTEGRATIONS_CALLBACK_NETWORKS": "127.0.0.2/32",
        "SECRET": "secret",
        "SIGNING": SIGNING,
    }
    with running_gateway(folder, folder, database_url, environment) as running:
        yield running


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One state database of each kind for all tests here."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql_url")
    path = tmp_path_factory.mktemp("answering") / "state.db"
    path.write_bytes(request.getfixturevalue("migrated_sqlite").read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def url(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway for all tests here."""
    with gateway_process(tmp_path_factory.mktemp("gateway"), database_url) as running:
        yield running.url


@pytest.fixture
def flow(database_url: str) -> Iterator[Flow]:
    """What handles the requests, from now until the test's end."""
    engine = open_database(database_url)
    flow = Flow(engine)
    yield flow
    flow.stop()
    for delivery in flow.taken:  # nothing is left for the next test
        if flow.requests.of_delivery(delivery.id).ended_at is None:
            flow.settle(delivery, Reply.json("the test is over"))
    flow.inbox.close()
    engine.dispose()


@pytest.fixture
def caller(url: str) -> Iterator[httpx.Client]:
    """A caller with its credential."""
    with httpx.Client(base_url=url, headers=KEY, timeout=30) as client:
        yield client


def never(_delivery):
    return None


def test_the_flow_decides_what_is_answered(flow, caller):
    """Status, headers and body are the flow's, down to files."""
    file = Reply.file(b"%PDF\x00", name="quote.pdf", content_type="application/pdf")
    flow.reply = lambda delivery: file if delivery.json() == 1 else Reply.problem(404, "no")
    found = caller.post("/quick", json=1)
    assert (found.status_code, found.content) == (200, b"%PDF\x00")
    assert found.headers["content-type"] == "application/pdf"
    assert found.headers["content-disposition"].endswith("quote.pdf")
    missing = caller.post("/quick", json=2)
    assert (missing.status_code, missing.json()["detail"]) == (404, "no")
    assert missing.headers["content-type"] == "application/problem+json"


def test_equal_requests_without_a_key_are_two(flow, caller):
    """Asking twice asks twice: no digest of the body makes them one."""
    assert [caller.post("/quick", json={"a": 1}).json() for _ in range(2)] == [{"a": 1}] * 2
    assert len(flow.taken) == 2


def test_malformed_and_unauthentic_requests_are_not_stored(flow, caller, url):
    """What is no JSON gets 400, what shows no key 401, and no flow sees either."""
    headers = {"Content-Type": "application/json"}
    assert caller.post("/quick", content=b"{", headers=headers).status_code == 400
    assert httpx.post(f"{url}/quick", json=1).status_code == 401
    assert caller.post("/quick", json=1, headers={"Idempotency-Key": ""}).status_code == 400
    assert flow.taken == []


def test_the_deadline_is_not_the_end(flow, caller):
    """202 with a place to look: waiting, then progress, then the result, there and by itself."""
    flow.reply = never
    late = caller.post("/short", json={"a": 1})
    assert late.status_code == 202
    assert late.headers["retry-after"] == "1"
    location = late.headers["location"]
    assert late.json()["location"] == location
    [delivery] = flow.wait_for(1)
    flow.requests.tell_progress({delivery.id: Progress("half", 50)})
    status = caller.get(location)
    assert status.status_code == 200
    assert status.json()["state"] == "running"
    assert status.json()["progress"] == {"message": "half", "percent": 50}
    assert status.json()["run"] == "run-1"
    assert caller.get(f"{location}/result").status_code == 202
    flow.settle(delivery, Reply.json({"total": 3}, status=201))
    status = caller.get(location, headers={"Prefer": "wait=20"}).json()
    assert (status["state"], status["result"]["status"]) == ("done", 201)
    assert status["result"]["body"] == {"total": 3}
    result = caller.get(f"{location}/result")
    assert (result.status_code, result.json()) == (201, {"total": 3})
    assert result.headers["cache-control"] == "no-store"


def test_the_status_can_be_waited_for(flow, caller):
    """`Prefer: wait` at the status resource returns when the request ends."""
    flow.reply = never
    location = caller.post("/quick", json=1, headers={"Prefer": "respond-async"}).headers[
        "location"
    ]
    [delivery] = flow.wait_for(1)
    settle = threading.Timer(0.3, flow.settle, (delivery, Reply.json("now")))
    settle.start()
    status = caller.get(location, headers={"Prefer": "wait=25"})
    settle.join()
    assert status.json()["result"]["body"] == "now"
    assert status.headers["preference-applied"] == "wait=25"


@pytest.mark.parametrize(
    ("prefer", "status", "applied"),
    [
        ("respond-async", 202, "respond-async"),
        ("wait=0", 202, "wait=0"),
        ("respond-async, wait=20", 200, "wait=20"),
        ("wait=20", 200, "wait=20"),
        ("wait=3000", 200, None),
    ],
)
def test_preferences(flow, caller, prefer, status, applied):
    """The caller's patience counts within the deadline, and it is told which was kept to."""
    reply = caller.post("/quick", json=1, headers={"Prefer": prefer})
    assert (reply.status_code, reply.headers.get("preference-applied")) == (status, applied)
    flow.wait_for(1)


def test_unknown_requests(caller):
    """Guessing finds nothing, and whatever else is below the path neither."""
    for path in ("A" * 32, "A" * 31, "x", "", f"{'A' * 32}/other", "%00" * 32, "%2e%2e/healthz"):
        reply = caller.get(f"/requests/{path}")
        assert reply.status_code == 404, path
    assert caller.post(f"/requests/{'A' * 32}").status_code == 405


def test_the_same_key_gives_the_same_result_without_a_second_run(flow, caller):
    """Also after the first answer; the answer says that it is a repetition."""
    headers = {"Idempotency-Key": "once"}
    first = caller.post("/quick", json={"a": 1}, headers=headers)
    second = caller.post("/quick", json={"a": 1}, headers=headers)
    assert first.json() == second.json() == {"a": 1}
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert len(flow.taken) == 1


def test_the_same_key_with_another_body_is_refused(flow, caller):
    """422 and nothing is done; another endpoint's keys are its own."""
    headers = {"Idempotency-Key": "mixed up"}
    caller.post("/quick", json={"a": 1}, headers=headers)
    refused = caller.post("/quick", json={"a": 2}, headers=headers)
    assert refused.status_code == 422
    assert "Idempotency-Key" in refused.json()["detail"]
    assert caller.post("/narrow", json={"a": 2}, headers=headers).status_code == 200
    assert len(flow.taken) == 2


def test_callers_with_the_same_key_wait_together(flow, url):
    """While the first is under way the others wait with it; there is one run and one result."""
    flow.reply = never

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/quick", json=1, headers={"Idempotency-Key": "together"})

    async def ask_together() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, headers=KEY, timeout=30) as client:
            asking = [asyncio.create_task(ask(client)) for _ in range(5)]
            await asyncio.to_thread(flow.wait_for, 1)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(flow.settle, flow.taken[0], Reply.json("one"))
            return await asyncio.gather(*asking)

    answers = asyncio.run(ask_together())
    assert [each.json() for each in answers] == ["one"] * 5
    assert len(flow.taken) == 1


def test_a_signed_id_is_the_key(flow, url):
    """Where the id is signed, a header that anybody could change makes no second run."""
    from datetime import UTC, datetime

    from tasks.core.intake.webhooks.standard_signature import sign

    headers = sign([SIGNING], message_id="msg_1", at=datetime.now(UTC), body=b"{}")
    for key in ("a", "b"):
        reply = httpx.post(
            f"{url}/signed", content=b"{}", headers={**headers, "Idempotency-Key": key}
        )
        assert reply.status_code == 200
    assert len(flow.taken) == 1


@pytest.mark.parametrize(("path", "headers"), [("/narrow", KEY), ("/open", {})])
def test_too_many_waiting_are_sent_away(flow, url, path, headers):
    """Beyond the limits 503 with Retry-After, per caller and in all, and nothing is stored."""
    flow.reply = never

    async def ask_at_once(count: int) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            asking = [asyncio.create_task(client.post(path, json=n)) for n in range(count)]
            while sum(task.done() for task in asking) < count - 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            for delivery in await asyncio.to_thread(flow.wait_for, 2):
                await asyncio.to_thread(flow.settle, delivery, Reply.json("ok"))
            return await asyncio.gather(*asking)

    answers = asyncio.run(ask_at_once(6))
    assert Counter(each.status_code for each in answers) == {200: 2, 503: 4}
    refused = next(each for each in answers if each.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    assert len(flow.taken) == 2
    # those who waited have given their places back, and who does not wait needs none
    flow.reply = lambda _delivery: Reply.json("again")
    assert httpx.post(f"{url}{path}", json=1, headers=headers, timeout=30).json() == "again"


def hang_up(url: str, path: str, flow: Flow) -> Delivery:
    """Ask, and close the connection while the request is under way."""

    async def ask_and_leave() -> None:
        async with httpx.AsyncClient(base_url=url, headers=KEY, timeout=30) as client:
            asking = asyncio.create_task(client.post(path, json=1))
            await asyncio.to_thread(flow.wait_for, 1)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    flow.reply = never
    asyncio.run(ask_and_leave())
    return flow.taken[0]


def test_hanging_up_does_not_stop_the_run(flow, url):
    """The request stays under way and its result is kept."""
    delivery = hang_up(url, "/quick", flow)
    time.sleep(0.3)
    assert flow.requests.cancelled_among([delivery.id]) == set()
    flow.settle(delivery, Reply.json(1))
    assert flow.requests.of_delivery(delivery.id).state == "done"


def test_hanging_up_cancels_where_it_is_declared(flow, url):
    """The flow is told that nobody wants the answer any more."""
    delivery = hang_up(url, "/cancelling", flow)
    while not flow.requests.cancelled_among([delivery.id]):
        time.sleep(0.01)


def test_deleting_the_status_resource_cancels(flow, caller):
    """Whoever knows the id may say that the answer is not wanted any more."""
    flow.reply = never
    location = caller.post("/short", json=1).headers["location"]
    [delivery] = flow.wait_for(1)
    assert caller.delete(location).json()["state"] == "running"
    assert flow.requests.cancelled_among([delivery.id]) == {delivery.id}
    flow.settle(delivery, Reply.problem(409, "cancelled"), "cancelled")
    assert caller.get(location).json()["state"] == "cancelled"


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9/x",
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://[::1]/x",
        "https://169.254.169.254/latest/meta-data",
        "http://example.com/x",
        "ftp://example.com/x",
        "nonsense",
    ],
)
@pytest.mark.parametrize("given_in", ["header", "field"])
def test_forged_callback_addresses(flow, caller, address, given_in):
    """An address inside our network is refused at once, wherever it stands; nothing is done."""
    headers = {"X-Callback-Url": address} if given_in == "header" else {}
    body = {"reply": {"to": address}} if given_in == "field" else {}
    reply = caller.post("/short", json=body, headers=headers)
    assert reply.status_code == 422
    assert "callback address is refused" in reply.json()["detail"]
    assert flow.taken == []


def test_an_allowed_callback_is_stored_when_the_caller_is_told_to_look_later(flow, caller, url):
    """After a 202 the result becomes a delivery of the callbacks, naming the request."""
    flow.reply = never
    headers = {"X-Callback-Url": "http://127.0.0.2:9/x"}
    assert caller.post("/short", json=1, headers=headers).status_code == 202
    [delivery] = flow.wait_for(1)
    flow.settle(delivery, Reply.json(1))
    [callback] = flow.inbox.lease("callbacks", LeaseOwner("run-2"), limit=10)
    request = flow.requests.of_delivery(delivery.id)
    assert callback.json() == {"request": request.id}
    assert request.callback.url == "http://127.0.0.2:9/x"
    assert request.callback.location == f"/requests/{request.id}"
    flow.inbox.settle([Settlement(callback, "done")])


def test_the_answer_finds_the_process_that_holds_the_caller(
    flow, url, database_url, tmp_path_factory
):
    """Of two gateways each gets the answers of its callers, and knows the other's keys."""
    folder = tmp_path_factory.mktemp("other")
    with gateway_process(folder, database_url) as other:

        async def ask_both() -> list[httpx.Response]:
            async with httpx.AsyncClient(headers=KEY, timeout=30) as client:
                return await asyncio.gather(
                    *(
                        client.post(f"{where}/quick", json=[where, number])
                        for where in (url, other.url)
                        for number in range(8)
                    )
                )

        answers = asyncio.run(ask_both())
        assert [each.json() for each in answers] == [
            [where, number] for where in (url, other.url) for number in range(8)
        ]
        headers = {**KEY, "Idempotency-Key": "both"}
        for where in (url, other.url):
            reply = httpx.post(f"{where}/quick", json="b", headers=headers, timeout=30)
            assert reply.json() == "b"
        assert len(flow.taken) == 17


def test_stopping_the_gateway_leaves_nobody_hanging(flow, database_url, tmp_path_factory):
    """On SIGTERM whoever waits is told where to look, at once."""
    flow.reply = never
    folder = tmp_path_factory.mktemp("stopped")
    with gateway_process(folder, database_url) as running:

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(base_url=running.url, headers=KEY, timeout=30) as client:
                asking = asyncio.create_task(client.post("/quick", json=1))
                await asyncio.to_thread(flow.wait_for, 1)
                running.process.send_signal(signal.SIGTERM)
                return await asking

        reply = asyncio.run(ask())
        assert reply.status_code == 202
        assert reply.headers["location"].startswith("/requests/")
        running.process.wait(20)


def test_lost_notices_delay_an_answer_and_lose_none(flow, caller, database_url):
    """When the connection that notifies is cut, answers are found by looking."""
    if not database_url.startswith("postgresql"):
        pytest.skip("SQLite has no notices")
    assert caller.post("/quick", json=1).json() == 1
    name = database_url.rpartition("/")[2]
    with psycopg.connect(database_url, autocommit=True) as connection:
        cut = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = %s AND query LIKE 'LISTEN%%'",
            (name,),
        ).fetchall()
    assert cut
    assert caller.post("/quick", json=2).json() == 2


def test_nothing_of_a_request_is_logged(flow, caller, url, tmp_path_factory):
    """Neither bodies nor ids that open results stand in the access log."""
    location = caller.post("/short", json={"secret": "hush"}).headers.get("location", "")
    folder = next(
        path for path in tmp_path_factory.getbasetemp().iterdir() if path.name.startswith("gateway")
    )
    time.sleep(0.3)
    logged = (folder / "access.log").read_text()
    assert "hush" not in logged
    assert not location or location.rpartition("/")[2] not in logged


def test_operators_see_requests_as_deliveries(flow, caller):
    """Each request is a delivery of the inbox with its status."""
    flow.reply = lambda _delivery: Reply.json(1)
    caller.post("/quick", json=1)
    [delivery] = flow.taken
    [summary] = InboxOperations(flow.engine).select(DeliveryFilter(ids=(delivery.id,)))
    assert (summary.endpoint, summary.status) == ("quick", "done")
