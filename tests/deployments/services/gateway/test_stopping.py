"""The gateway ends in the time that it promises, whichever of its other sides says nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from deployments.services.gateway.metrics import Metrics
from deployments.services.gateway.notifier import Notifier, PrefectEvents
from deployments.services.gateway.request_reply import RequestReply
from deployments.services.gateway.secret_renewal import Renewal
from deployments.services.gateway.waiters import Waiters
from sandbox.gateway_process import RunningGateway, running_gateway
from sandbox.systems.fault_proxy import FaultProxy
from tasks.core.intake.inbox.consumer_registry import ConsumerRegistry
from tasks.core.registry.secrets.store import StoredSecrets
from tasks.core.state.database import open_database

IN_TIME_S = 60
"""Nothing here takes this long unless it hangs."""


@pytest.fixture
def line(postgresql_url: str, fault_proxy: Callable[[int], FaultProxy]) -> FaultProxy:
    """What stands between the gateway and PostgreSQL, and can fall silent."""
    return fault_proxy(make_url(postgresql_url).port or 5432)


@pytest.fixture
def url_through_the_line(postgresql_url: str, line: FaultProxy) -> str:
    url = make_url(postgresql_url).set(host=line.host, port=line.port)
    return url.render_as_string(hide_password=False)


@pytest.fixture
async def through_the_line(url_through_the_line: str, line: FaultProxy) -> AsyncIterator[Engine]:
    engine = open_database(url_through_the_line)
    yield engine
    line.swallow_from = None
    line.swallow = False
    await asyncio.get_running_loop().shutdown_default_executor()  # threads that waited there
    engine.dispose()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def ended(task: asyncio.Task) -> asyncio.Task:
    done, _ = await asyncio.wait({task}, timeout=IN_TIME_S)
    assert done, f"{task} hangs"
    return task


async def cancelled(task: asyncio.Task) -> bool:
    task.cancel()
    return (await ended(task)).cancelled()


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_who_listens_for_notices_does_not_wait_for_the_database(through_the_line, line, how):
    """Neither for the answer to its statement, nor to have that cancelled."""
    waiters = Waiters(through_the_line)
    line.swallow_from = b"LISTEN"
    await waiters.start()
    while not line.swallow:  # noqa: ASYNC110 - it is another thread's
        await asyncio.sleep(0.01)
    connections = line.connections
    if how == "cancel":
        for task in waiters._tasks:
            assert await cancelled(task)
    await ended(asyncio.create_task(waiters.close()))
    assert line.connections == connections


async def test_answering_does_not_wait_for_the_database(through_the_line, line):
    """Nobody waits for results to be purged, or for what was asked of a request."""
    request_reply = RequestReply(through_the_line)
    line.swallow_from = b"awaited_requests"
    await request_reply.start()
    while not line.swallow:  # noqa: ASYNC110 - it is another thread's
        await asyncio.sleep(0.01)
    with request_reply.waiters.waiting_for("a"):
        await ended(asyncio.create_task(request_reply.close()))
    assert request_reply._purging.cancelled()


async def test_secrets_are_not_waited_for(through_the_line, line):
    """Neither by the look that is under way nor by the requests that asked for one."""
    secrets = StoredSecrets(through_the_line, [])
    renewal = Renewal(secrets.versions, lambda _made: None, every_s=0)
    line.swallow = True
    renewal.start()
    asking = asyncio.create_task(renewal.look())
    await asyncio.sleep(0.1)
    assert await cancelled(asking)
    await ended(asyncio.create_task(renewal.close()))
    assert renewal._task.cancelled()


@pytest.mark.parametrize("who", ["the database", "Prefect"])
async def test_nobody_waits_for_the_notifier(through_the_line, line, silent, who):
    """Neither while it asks for runs nor while it notifies."""
    prefect = PrefectEvents({"PREFECT_API_URL": f"{silent}/api"})
    count = ConsumerRegistry(through_the_line).at_work
    notifier = Notifier(prefect.post, count, Metrics())
    line.swallow = who == "the database"
    notifier.notify("shop")
    await asyncio.sleep(0.1)
    [task] = [bell.task for bell in notifier._bells.values()]
    await ended(asyncio.create_task(notifier.close(timeout_s=0.1)))
    assert task.cancelled()
    await ended(asyncio.create_task(prefect.close()))


TOPIC = "arn:aws:sns:eu-central-1:123456789012:orders"
SNS = json.loads(
    (Path(__file__).parents[3] / "tasks/core/intake/webhooks/vectors/sns_messages.json").read_text()
)
DECLARED = f"""
integration: shop
endpoints:
  open: {{path: /open, scheme: none}}
  quick: {{path: /quick, scheme: none, synchronous: {{deadline_s: 120}}}}
  sns: {{path: /sns, scheme: sns, options: {{topic_arns: ["{TOPIC}"]}}}}
"""


@contextmanager
def gateway(folder: Path, url: str, **environment: str) -> Iterator[RunningGateway]:
    (folder / "integration.yaml").write_text(DECLARED)
    with running_gateway(folder, folder, url, environment) as running:
        yield running


def stop(running: RunningGateway, number: int = signal.SIGTERM) -> int:
    """Send the signal; the exit code. Whatever the gateway has started ends with it."""
    others = psutil.Process(running.process.pid).children(recursive=True)
    running.process.send_signal(number)
    code = running.process.wait(IN_TIME_S)
    assert psutil.wait_procs(others, IN_TIME_S)[1] == []
    return code


def sending(stack: ExitStack, url: str, text: str) -> socket.socket:
    """Send so much of a request, and leave the connection open."""
    address = httpx.URL(url)
    connection = stack.enter_context(socket.create_connection((address.host, address.port), 60))
    connection.sendall(text.replace("\n", "\r\n").encode())
    return connection


def wait_until_read(running: RunningGateway) -> None:
    """What was sent before is with the gateway once it has answered what was sent later."""
    for _ in range(2):
        assert httpx.get(f"{running.url}/healthz", timeout=IN_TIME_S).status_code == 200


def post(path: str, body: str, length: int | None = None) -> str:
    length = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\nHost: x\nContent-Length: {length}\n\n{body}"


def status(connection: socket.socket) -> int:
    return int(connection.recv(65536).split()[1])


def stored(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT body FROM inbox_requests").fetchall()
        return {bytes(body).decode() for (body,) in found}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_while_everybody_is_silent(
    postgresql_url, url_through_the_line, line, silent, tmp_path, number
):
    """Database, Prefect, the certificates' host, and senders: none keeps it from its end.

    It dies of the signal, as supervisors expect; what it has accepted is in the inbox; to whom it
    has not, it says so.
    """
    environment = {"PREFECT_API_URL": f"{silent}/api", "HTTPS_PROXY": silent}
    with (
        ExitStack() as stack,
        gateway(tmp_path, url_through_the_line, **environment) as running,
    ):
        accepted = {f'{{"{number.name}":{n}}}' for n in range(20)}
        for body in accepted:
            assert httpx.post(f"{running.url}/open", content=body).status_code == 202
        line.swallow = True
        storing = [sending(stack, running.url, post("/open", f'{{"late":{n}}}')) for n in range(40)]
        asking = sending(stack, running.url, f"GET /requests/{'a' * 32} HTTP/1.1\nHost: x\n\n")
        sending(stack, running.url, post("/open", '{"half', length=100))
        sending(stack, running.url, "POST /open HT")
        message = json.dumps(dict(SNS["messages"])["Notification, JSON message"])
        for _ in range(40):
            sending(stack, running.url, post("/sns", message))
        wait_until_read(running)
        assert stop(running, number) == -number
        assert [status(each) for each in (*storing, asking)] == [503] * 41
        assert accepted <= stored(postgresql_url)
        said = (tmp_path / "said.log").read_text()
        assert "Traceback" not in said
        lines = (tmp_path / "access.log").read_text().splitlines()
        outcomes = [json.loads(each)["outcome"] for each in lines]
        assert (outcomes.count("accepted"), outcomes.count("not stored")) == (20, 81)


def test_it_ends_when_nobody_reads_its_log(tmp_path, migrated_sqlite):
    """What is accepted is stored; the pipe that is full does not keep the process."""
    database = tmp_path / "state.db"
    database.write_bytes(migrated_sqlite.read_bytes())
    url = f"sqlite:///{database}"
    os.mkfifo(tmp_path / "access.log")
    pipe = os.open(tmp_path / "access.log", os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, bytes(4096))
    with gateway(tmp_path, url) as running:
        assert httpx.post(f"{running.url}/open", content=b"{}").status_code == 202
        assert stop(running) == -signal.SIGALRM
    os.close(pipe)
    with closing(sqlite3.connect(database)) as state:
        assert state.execute("SELECT body FROM inbox_requests").fetchall() == [(b"{}",)]


def test_callers_are_told_where_to_look_and_prefect_is_not_waited_for(
    tmp_path, migrated_sqlite, silent
):
    """Those who wait for an answer, or for a request's end, hear at once that there is none yet."""
    database = tmp_path / "state.db"
    database.write_bytes(migrated_sqlite.read_bytes())
    environment = {"PREFECT_API_URL": f"{silent}/api"}
    with (
        ExitStack() as stack,
        gateway(tmp_path, f"sqlite:///{database}", **environment) as running,
    ):
        told = httpx.post(f"{running.url}/quick", json=1, headers={"Prefer": "respond-async"})
        location = told.headers["location"]
        caller = sending(stack, running.url, post("/quick", "1"))
        look = f"GET {location} HTTP/1.1\nHost: x\nPrefer: wait=30\n\n"
        looking = sending(stack, running.url, look)
        wait_until_read(running)
        assert stop(running) == -signal.SIGTERM
        assert (status(caller), status(looking)) == (202, 200)
