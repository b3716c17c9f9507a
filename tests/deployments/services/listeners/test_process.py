"""The listeners as a process: it waits for its database, and ends when it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter

import pytest
import yaml
from sqlalchemy import make_url

from sandbox.systems import fault_proxy
from tasks.core.intake.inbox.operations import DeliveryFilter, InboxOperations
from tasks.core.state.database import open_database

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def start(tmp_path):
    """Starts the process with its sources and a database; it is killed at the end."""
    started = []

    def start(sources, database_url, *, port=0):
        file = tmp_path / "sources.yaml"
        file.write_text(yaml.safe_dump({"integration": "test", "sources": sources}))
        environment = os.environ | {
            "INTEGRATIONS_SOURCES": str(file),
            "INTEGRATIONS_DATABASE_URL": database_url,
            "PREFECT_API_URL": "http://127.0.0.1:9/api",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.listeners", "--port", str(port)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def eventually(look, timeout_s=60):
    for _ in range(int(timeout_s / 0.05)):
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it never came true")


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_a_process_that_starts_before_its_database_waits_for_it(
    broker, start, postgresql_url
):
    """It does not end: when the database is there, what came meanwhile is stored."""
    await broker.publish([b'{"id": 1}'])
    url = make_url(postgresql_url)
    engine = open_database(postgresql_url)
    stored = DeliveryFilter(endpoint="orders", integration="test")
    before = len(InboxOperations(engine).select(stored))
    with fault_proxy.start(("127.0.0.1", url.port or 5432)) as proxy:
        proxy.refuse = True
        through_it = url.set(host=proxy.host, port=proxy.port)
        process = start(
            {"orders": broker.declaration(*broker.address)},
            through_it.render_as_string(hide_password=False),
        )
        eventually(lambda: "does not answer" in process.stderr.readline())
        proxy.refuse = False
        eventually(lambda: len(InboxOperations(engine).select(stored)) == before + 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    engine.dispose()


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_a_process_that_waits_for_its_database_can_be_stopped(broker, start):
    """SIGTERM ends the waiting, too."""
    process = start(
        {"orders": broker.declaration(*broker.address)}, "postgresql://nobody@127.0.0.1:9/nowhere"
    )
    eventually(lambda: "does not answer" in process.stderr.readline())
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
async def test_a_stopped_process_has_stored_and_acknowledged_what_it_took(broker, start, tmp_path):
    """After SIGTERM nothing is both in the inbox and in the queue, and nothing in neither."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    database_url = f"sqlite:///{tmp_path / 'state.db'}"
    engine = open_database(database_url)
    process = start({"orders": broker.declaration(*broker.address)}, database_url, port=port)
    sent = [json.dumps({"id": n}).encode() for n in range(3000)]
    await broker.publish(sent)
    eventually(lambda: InboxOperations(engine).select(DeliveryFilter(limit=1)))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    stored = len(InboxOperations(engine).select(DeliveryFilter(limit=10_000)))
    connection = await broker.connect()
    channel = await connection.channel()
    left = (await channel.declare_queue(broker.name, passive=True)).declaration_result
    await connection.close()
    engine.dispose()
    assert stored + left.message_count == 3000


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_it_tells_how_its_sources_do(broker, start, tmp_path):
    """The page of the sources names state and counts; readiness says whether all listen."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    start(
        {"orders": broker.declaration(*broker.address)},
        f"sqlite:///{tmp_path / 'state.db'}",
        port=port,
    )

    def get(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
                return json.load(answer)
        except OSError:
            return None

    eventually(lambda: get("/readyz"))
    [source] = get("/sources")
    assert (source["name"], source["state"]) == ("orders", "listening")


def stop(process):
    """SIGTERM; returns how it ended, and what it said."""
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    return process.returncode, told


def ended_by_itself(end):
    code, told = end
    return code == 0 and "leaving" not in told


async def test_a_process_whose_brokers_are_all_silent_stops_and_loses_nothing(
    brokers, lines, start, tmp_path
):
    """SIGTERM ends it in time; what it did not acknowledge is stored, once, by the next one."""
    sources = {broker.kind: line.fields for broker, line in zip(brokers, lines, strict=True)}
    bodies = [b'{"id": %d}' % n for n in range(30)]
    for broker in brokers:
        await broker.publish(bodies[:10])
    database_url = f"sqlite:///{tmp_path / 'state.db'}"
    engine = open_database(database_url)

    def stored():
        found = InboxOperations(engine).select(DeliveryFilter(limit=10_000))
        return Counter(each.endpoint for each in found)

    process = start(sources, database_url)
    eventually(lambda: stored().keys() == sources.keys())
    for broker, line in zip(brokers, lines, strict=True):
        await broker.publish(bodies[10:20])
        line.set_silent(silent=True)
    assert ended_by_itself(stop(process))
    for broker, line in zip(brokers, lines, strict=True):
        line.set_silent(silent=False)
        await broker.publish(bodies[20:])
    process = start(sources, database_url)
    eventually(lambda: stored() == dict.fromkeys(sources, len(bodies)))
    assert ended_by_itself(stop(process))
    engine.dispose()


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_a_process_whose_database_is_silent_at_its_start_can_be_stopped(
    broker, start, postgresql_url
):
    """A database that takes the connection and says nothing is not waited for."""
    url = make_url(postgresql_url)
    with fault_proxy.start(("127.0.0.1", url.port or 5432)) as proxy:
        proxy.swallow = True
        through_it = url.set(host=proxy.host, port=proxy.port)
        process = start(
            {"orders": broker.declaration(*broker.address)},
            through_it.render_as_string(hide_password=False),
        )
        eventually(lambda: proxy.connections)
        assert ended_by_itself(stop(process))


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_a_process_whose_database_fell_silent_stops_and_loses_nothing(
    broker, start, postgresql_url
):
    """What is on its way to the database then is not acknowledged, and the next one stores it."""
    url = make_url(postgresql_url)
    engine = open_database(postgresql_url)
    stored = DeliveryFilter(endpoint="orders", integration="test")
    before = len(InboxOperations(engine).select(stored))
    sources = {"orders": broker.declaration(*broker.address)}
    with fault_proxy.start(("127.0.0.1", url.port or 5432)) as proxy:
        through_it = url.set(host=proxy.host, port=proxy.port)
        database_url = through_it.render_as_string(hide_password=False)
        process = start(sources, database_url)
        await broker.publish([b'{"id": 1}'])
        eventually(lambda: len(InboxOperations(engine).select(stored)) == before + 1)
        proxy.swallow = True
        await broker.publish([b'{"id": 2}'])
        async with broker.connect() as client:
            for _ in range(1000):
                if (await client.xpending(broker.name, "orders"))["pending"]:
                    break
                await asyncio.sleep(0.02)
        assert ended_by_itself(stop(process))
        proxy.swallow = False
        process = start(sources, database_url)
        eventually(lambda: len(InboxOperations(engine).select(stored)) == before + 2)
        assert ended_by_itself(stop(process))
    engine.dispose()


STUBBORN = """
import asyncio
import sys
from deployments.services.listeners import __main__ as process

async def swallow(listeners, until):
    print("in the middle of it", file=sys.stderr, flush=True)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

process.Listeners.run = swallow
process._STOPS_WITHIN_S = 0.5
sys.exit(process.main(["--port", "0"]))
"""


def test_a_process_in_which_something_hangs_leaves_without_it(tmp_path):
    """Whatever swallows being cancelled, the process ends in time, and tells where it hung."""
    environment = os.environ | {
        "INTEGRATIONS_SOURCES": str(tmp_path),
        "INTEGRATIONS_DATABASE_URL": f"sqlite:///{tmp_path / 'state.db'}",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], env=environment, stderr=subprocess.PIPE, text=True
    )
    eventually(lambda: "in the middle of it" in process.stderr.readline())
    code, told = stop(process)
    assert code == 0
    assert "leaving" in told
    assert "in main" in told
