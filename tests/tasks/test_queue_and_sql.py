"""Rows and messages that wait elsewhere get into the application, on a real Prefect server."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest
from prefect import flow
from pydantic import BaseModel, Field
from sqlalchemy import text

from blocks.http_api import ApiKeyAuth, HttpApi
from blocks.rabbitmq_broker import RabbitMqBroker
from blocks.redis_server import RedisServer
from blocks.sql_database import SqlDatabase
from blocks.sqs_queue import SqsQueue
from deployments.sandbox import s3_server
from deployments.sandbox.message_brokers import RabbitMq, Redis, Sqs
from tasks.plain.inbox.operations import InboxOperations, Selection
from tasks.plain.sql_tables.row_queue import RowQueueSettings
from tasks.plain.state.database import open_database
from tasks.queue import import_waiting_messages, open_queue
from tasks.sql import import_waiting_rows, write_report_table

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.usefixtures("prefect_server"),
]


class Item(BaseModel):
    sku: str
    name: str
    quantity: int = Field(ge=0)


@pytest.fixture(scope="module")
def prefect_server():
    """A real server on SQLite in a directory of its own."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=60):
        yield


@pytest.fixture(autouse=True)
def inbox_url(monkeypatch, migrated_sqlite, tmp_path):
    """An inbox of its own for parked messages."""
    import shutil

    shutil.copy(migrated_sqlite, tmp_path / "state.db")
    monkeypatch.setenv("INTEGRATIONS_DATABASE_URL", f"sqlite:///{tmp_path / 'state.db'}")


@pytest.fixture
def application(own_app):
    return HttpApi(base_url=f"{own_app.base_url}/api/v1", auth=ApiKeyAuth(key=own_app.api_key))


def run(task, *arguments, **options):
    """Call a task in a flow; returns the type and the message of its state."""
    seen: list[tuple[str, str]] = []

    @flow(name=f"test-{uuid.uuid4().hex[:8]}")
    async def outcome():
        state = await task(*arguments, **options, return_state=True)
        seen.append((state.type.value, state.message))

    asyncio.run(outcome())
    return seen[0]


def stock(own_app):
    return {record["sku"]: record["quantity"] for record in own_app.records("inventory")}


def brokers(kind):
    fields = {"host": "127.0.0.1", "tls": False}
    if kind == "rabbitmq":
        login = {"username": "guest", "password": "guest", "port": 5672}
        return RabbitMq(), lambda b: open_queue(RabbitMqBroker(**fields, **login), name=b.name)
    return Redis(), lambda b: open_queue(RedisServer(**fields), name=b.name)


@pytest.mark.parametrize("kind", ["rabbitmq", "redis", "sqs"])
def test_what_waits_in_a_queue_is_imported_and_bad_messages_are_parked(kind, application, own_app):
    """Good messages are imported and gone; a bad one is kept in the inbox, and the run says so."""
    bodies = [json.dumps({"sku": f"S{n}", "name": "x", "quantity": n}).encode() for n in range(5)]
    bodies.insert(2, b'{"sku": "bad", "name": "x", "quantity": -1}')
    with s3_server.start() as aws:
        if kind == "sqs":
            broker = Sqs(aws.endpoint_url)
        else:
            broker, opened = brokers(kind)
        asyncio.run(broker.create())
        if kind == "sqs":
            block = SqsQueue(**broker.declaration(*broker.address)["connection"])
            source = open_queue(block)
        else:
            source = opened(broker)
        options = {"integration": "stock", "resource": "inventory", "model": Item}
        try:
            asyncio.run(broker.publish(bodies))
            state, told = run(import_waiting_messages, source, application, **options)
            again = run(import_waiting_messages, source, application, **options)
        finally:
            asyncio.run(broker.remove())
    assert (state, told.partition(":")[0]) == ("FAILED", "5 messages imported, 1 parked")
    assert again == ("COMPLETED", "0 messages imported, 0 parked")
    assert stock(own_app) == {f"S{n}": n for n in range(5)}
    engine = open_database()
    [parked] = InboxOperations(engine).select(Selection(statuses=("parked",)))
    engine.dispose()
    assert "quantity" in parked.reason


def test_an_application_that_is_away_leaves_the_messages_in_the_queue(application, own_app):
    """What could not be imported is given back, and the next run imports it."""
    broker, opened = brokers("rabbitmq")
    asyncio.run(broker.create())
    options = {"integration": "stock", "resource": "inventory", "model": Item}
    own_app.http.put("/sandbox/behaviour", json={"mode": "error", "status": 503, "remaining": 1})
    once = application.model_copy(update={"max_attempts": 1})
    try:
        asyncio.run(broker.publish([b'{"sku": "S1", "name": "x", "quantity": 1}']))
        state, _ = run(import_waiting_messages, opened(broker), once, **options)
        assert (state, stock(own_app)) == ("FAILED", {})
        state, _ = run(import_waiting_messages, opened(broker), once, **options)
    finally:
        asyncio.run(broker.remove())
    assert (state, stock(own_app)) == ("COMPLETED", {"S1": 1})


@pytest.fixture
def shop(tmp_path):
    """Another system's database with four rows that wait, one of them bad."""
    block = SqlDatabase(kind="sqlite", database=str(tmp_path / "shop.db"))
    with block.get_client().begin() as connection:
        connection.execute(text("CREATE TABLE stock (id INTEGER PRIMARY KEY, sku, qty, status)"))
        connection.execute(
            text("INSERT INTO stock (sku, qty) VALUES ('A', 1), ('B', -2), ('C', 3), ('D', 4)")
        )
    return block


def test_rows_that_wait_in_a_table_are_imported_and_marked(shop, application, own_app):
    """Good rows are imported and marked, the bad one is marked as such, and the run says why."""
    rows = RowQueueSettings(table="stock", key="id", columns=["sku", "qty"], status_column="status")
    options = {"resource": "inventory", "model": Stock, "columns": {"qty": "quantity"}}
    state, told = run(import_waiting_rows, shop, rows, application, batch_size=3, **options)
    assert (state, told.partition(":")[0]) == ("FAILED", "3 rows imported, 1 bad")
    assert stock(own_app) == {"A": 1, "C": 3, "D": 4}
    with shop.get_client().connect() as connection:
        marks = list(connection.execute(text("SELECT status FROM stock ORDER BY id")).scalars())
    assert marks == ["done", "failed", "done", "done"]
    assert run(import_waiting_rows, shop, rows, application, **options)[0] == "COMPLETED"


class Stock(BaseModel):
    sku: str
    name: str = "unnamed"
    quantity: int = Field(ge=0)


def test_a_report_is_written_into_a_table(shop):
    """The task replaces rows, or merges them by their key."""
    rows = [{"sku": "A", "qty": 9}]
    assert run(write_report_table, shop, "stock", rows, columns=["sku", "qty"], key=["sku"])[0] == (
        "COMPLETED"
    )
    run(write_report_table, shop, "stock", rows, columns=["sku", "qty"], replace_where={"sku": "B"})
    with shop.get_client().connect() as connection:
        found = connection.execute(text("SELECT sku, qty FROM stock ORDER BY sku, qty")).all()
    assert [tuple(row) for row in found] == [("A", 9), ("A", 9), ("C", 3), ("D", 4)]
