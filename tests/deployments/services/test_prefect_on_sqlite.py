"""The server that takes turns at its database, and whose event loop collects no garbage."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
import websockets
from prefect.server.database.dependencies import (
    provide_database_interface,
    temporary_database_config,
)

from deployments.services.prefect_on_sqlite import SqliteInTurn, take_turns

CYCLES = """
import gc, threading, time
from deployments.services import prefect_on_sqlite
collected_by = set()
class Cycle:
    def __init__(self): self.me = self
    def __del__(self): collected_by.add(threading.current_thread().name)
prefect_on_sqlite.collect_in_a_thread()
deadline = time.monotonic() + 30
while not collected_by and time.monotonic() < deadline:
    [Cycle() for _ in range(10_000)]
    time.sleep(0.01)
assert collected_by == {"garbage"}, collected_by
"""


@pytest.fixture
def database(tmp_path: Path) -> SqliteInTurn:
    """A SQLite file of its own."""
    return SqliteInTurn(f"sqlite+aiosqlite:///{tmp_path / 'server.db'}")


async def count_up(database: SqliteInTurn) -> int:
    """Read, then write, in a transaction; returns what was read."""
    engine = await database.engine()
    async with await database.session(engine) as session, database.begin_transaction(session):
        count: int = await session.scalar(sa.text("SELECT max(n) FROM counts"))
        await asyncio.sleep(0)  # others want to write as well
        await session.execute(sa.text(f"INSERT INTO counts VALUES ({count + 1})"))
        return count


def test_who_reads_before_it_writes_is_never_locked_out(database: SqliteInTurn):
    """However many transactions there are at once, each sees what the one before has written."""

    async def all_at_once() -> list[int]:
        engine = await database.engine()
        async with engine.begin() as connection:
            await connection.execute(sa.text("CREATE TABLE counts AS SELECT 0 AS n"))
        return await asyncio.gather(*(count_up(database) for _ in range(20)))

    assert asyncio.run(all_at_once()) == list(range(20))


def test_a_transaction_within_another_does_not_wait_for_it(database: SqliteInTurn):
    """What reads within a transaction goes on, also in tasks of its own; others still wait."""
    finished: list[str] = []

    async def read(name: str, *, in_transaction: bool = True) -> None:
        engine = await database.engine()
        async with await database.session(engine) as session:
            if not in_transaction:
                await session.execute(sa.text("SELECT 1"))
            else:
                async with database.begin_transaction(session):
                    await session.execute(sa.text("SELECT 1"))
        finished.append(name)

    async def outer() -> None:
        engine = await database.engine()
        async with await database.session(engine) as session, database.begin_transaction(session):
            other.set()
            await read("within")
            await read("plainly", in_transaction=False)
            await asyncio.create_task(read("its own task"))
        finished.append("outer")

    async def outsider() -> None:
        await other.wait()
        await read("outsider")

    async def both() -> None:
        await asyncio.wait_for(asyncio.gather(outsider(), outer()), timeout=30)

    other = asyncio.Event()
    asyncio.run(both())
    assert finished == ["within", "plainly", "its own task", "outer", "outsider"]


def test_what_outlives_a_transaction_waits_for_its_turn(database: SqliteInTurn):
    """Tasks started within a transaction take turns of their own once it has ended."""

    async def later(ended: asyncio.Event) -> int:
        await ended.wait()
        return await count_up(database)

    async def start_many() -> list[int]:
        engine = await database.engine()
        ended = asyncio.Event()
        async with await database.session(engine) as session, database.begin_transaction(session):
            await session.execute(sa.text("CREATE TABLE counts AS SELECT 0 AS n"))
            started = [asyncio.create_task(later(ended)) for _ in range(20)]
        ended.set()
        return await asyncio.gather(*started)

    assert asyncio.run(start_many()) == list(range(20))


@pytest.mark.parametrize(
    ("database_url", "in_turn"),
    [("sqlite+aiosqlite:////nowhere/server.db", True), ("postgresql+asyncpg://nowhere/x", False)],
)
def test_only_sqlite_takes_turns(database_url: str, in_turn: bool):
    """Prefect's server uses what is set here; PostgreSQL stays as it is."""
    with temporary_database_config(None):
        take_turns(database_url)
        config = provide_database_interface().database_config
        assert isinstance(config, SqliteInTurn) == in_turn


def test_garbage_is_never_collected_where_the_server_works():
    """However much garbage there is, another thread collects it."""
    done = subprocess.run([sys.executable, "-c", CYCLES], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.fixture(scope="module")
def server_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the running server has its database and its log."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server_url(server_home: Path) -> Iterator[str]:
    """A running server with a database of its own, which loses no time to call a run late."""
    with serving(server_home) as (_, url):
        yield url


@contextmanager
def serving(server_home: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "deployments.prefect_on_sqlite", f"--port={port}"]
    environment = {n: v for n, v in os.environ.items() if not n.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(server_home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "0",
        "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
    }
    with (server_home / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        while not _is_up(f"127.0.0.1:{port}/api"):
            time.sleep(0.2)
        yield server, f"127.0.0.1:{port}/api"
    finally:
        server.kill()
        server.wait()


def test_websockets_do_not_keep_requests_waiting(server_url: str):
    """However many runs are connected, requests are answered."""

    async def connect_many_and_ask() -> int:
        async with AsyncExitStack() as stack, httpx.AsyncClient() as client:
            for _ in range(110):  # Prefect's limit is 100
                url = f"ws://{server_url}/events/in"
                await stack.enter_async_context(websockets.connect(url, open_timeout=60))
            return (await client.get(f"http://{server_url}/health", timeout=60)).status_code

    assert asyncio.run(connect_many_and_ask()) == 200


def test_runs_that_are_late_lock_nobody_out(server_url: str, server_home: Path):
    """Those of a deployment that is at its limit are cancelled, all of them, without an error."""
    with httpx.Client(base_url=f"http://{server_url}", timeout=60) as server:

        def post(path: str, **body: object) -> httpx.Response:
            return server.post(path, json=body).raise_for_status()

        deployment = post(
            "/deployments/",
            name="busy",
            flow_id=post("/flows/", name="busy").json()["id"],
            concurrency_limit=1,
            concurrency_options={"collision_strategy": "CANCEL_NEW"},
        ).json()["id"]

        def start() -> str:
            created = post(f"/deployments/{deployment}/create_flow_run")
            return str(created.json()["id"])

        post(f"/flow_runs/{start()}/set_state", state={"type": "PENDING"})
        waiting = {start() for _ in range(6)}
        deadline = time.monotonic() + 60
        while waiting and time.monotonic() < deadline:
            time.sleep(0.1)
            waiting = {
                run for run in waiting
                if server.get(f"/flow_runs/{run}").json()["state"]["type"] != "CANCELLED"
            }  # fmt: skip
    assert not waiting
    assert "Traceback" not in (server_home / "log").read_text()


def _is_up(server_url: str) -> bool:
    try:
        return httpx.get(f"http://{server_url}/health").is_success
    except httpx.TransportError:
        return False


def test_it_is_prefects_server():
    """Options and help are those of `prefect server start`."""
    done = subprocess.run(
        [sys.executable, "-m", "deployments.prefect_on_sqlite", "--help"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--analytics-off" in done.stdout or "--host" in done.stdout


def test_it_stops_in_time(tmp_path: Path):
    """Neither a client that sends half a request nor a database that is locked keeps it.

    It dies of the signal, as supervisors expect, and what it has answered is stored.
    """
    with serving(tmp_path) as (server, url):
        stored = httpx.post(f"http://{url}/flows/", json={"name": "kept"}, timeout=60)
        assert stored.status_code == 201
        address = url.partition("/")[0].split(":")
        with (
            closing(_opened(tmp_path / "prefect.db")) as database,
            socket.create_connection(address) as half,
            socket.create_connection(address) as whole,
        ):
            database.execute("BEGIN IMMEDIATE")
            head = "POST /api/flows/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            half.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            body = '{"name": "waits for the lock"}'
            whole.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            while not _is_up(url):  # when it answers, it has read what was sent before
                pass
            server.terminate()
            assert server.wait(60) == -signal.SIGTERM
        with closing(_opened(tmp_path / "prefect.db")) as database:
            assert database.execute("SELECT name FROM flow").fetchall() == [("kept",)]


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=60)
