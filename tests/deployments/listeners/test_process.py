"""The listeners as a process: it waits for its database, and ends when it is told to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import yaml
from sqlalchemy import make_url

from deployments.sandbox import fault_proxy
from tasks.plain.inbox.operations import InboxOperations, Selection
from tasks.plain.state.database import open_database

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def start(tmp_path):
    """Starts the process with one source and a database; it is killed at the end."""
    started = []

    def start(fields, database_url, *, port=0):
        file = tmp_path / "sources.yaml"
        file.write_text(yaml.safe_dump({"integration": "test", "sources": {"orders": fields}}))
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
    stored = Selection(endpoint="orders", integration="test")
    before = len(InboxOperations(engine).select(stored))
    with fault_proxy.start(("127.0.0.1", url.port or 5432)) as proxy:
        proxy.refuse = True
        through_it = url.set(host=proxy.host, port=proxy.port)
        process = start(
            broker.declaration(*broker.address),
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
    process = start(broker.declaration(*broker.address), "postgresql://nobody@127.0.0.1:9/nowhere")
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
    process = start(broker.declaration(*broker.address), database_url, port=port)
    sent = [json.dumps({"id": n}).encode() for n in range(3000)]
    await broker.publish(sent)
    eventually(lambda: InboxOperations(engine).select(Selection(limit=1)))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    stored = len(InboxOperations(engine).select(Selection(limit=10_000)))
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
    start(broker.declaration(*broker.address), f"sqlite:///{tmp_path / 'state.db'}", port=port)

    def get(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
                return json.load(answer)
        except OSError:
            return None

    eventually(lambda: get("/readyz"))
    [source] = get("/sources")
    assert (source["name"], source["state"]) == ("orders", "listening")
