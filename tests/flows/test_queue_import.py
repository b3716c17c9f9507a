"""The scheduled import from queues as a whole: a broker, a Prefect server and the application."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from blocks.http_api import ApiKeyAuth, HttpApi
from blocks.rabbitmq_broker import RabbitMqBroker
from blocks.redis_server import RedisServer
from blocks.sqs_queue import SqsQueue
from flows.queue_import.flow import queue_import
from sandbox.systems import s3_server
from sandbox.systems.message_brokers import RabbitMq, Redis, Sqs
from tasks.core.intake.inbox.operations import DeliveryFilter

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


class Queue:
    """A queue, with the parameters of the flow that lead to it."""

    def __init__(self, broker, slug) -> None:
        self.broker = broker
        self.parameters = {"queue": slug, "name": broker.name, "record_type": "inventory"}
        self.parameters |= {"retry_delay_s": 0}

    def put(self, *bodies):
        asyncio.run(self.broker.publish([json.dumps(body).encode() for body in bodies]))

    def put_bytes(self, *bodies):
        asyncio.run(self.broker.publish(bodies))


@pytest.fixture(scope="module")
def aws():
    """A service that speaks SQS."""
    with s3_server.start() as service:
        yield service.endpoint_url


@pytest.fixture(params=["sqs", "rabbitmq", "redis"])
def queue(request, aws, runs, inbox, own_app):
    """An empty queue of each kind; it and the application are known to Prefect as blocks."""
    broker = {"sqs": lambda: Sqs(aws), "rabbitmq": RabbitMq, "redis": Redis}[request.param]()
    try:
        asyncio.run(broker.create())
    except OSError as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no {request.param} on this machine ({exc})")
    connection = broker.declaration(*broker.address)["connection"]
    kinds = {"sqs": SqsQueue, "rabbitmq": RabbitMqBroker, "redis": RedisServer}
    kind = kinds[request.param]
    kind(**connection).save("depot", overwrite=True)
    HttpApi(
        base_url=f"{own_app.base_url}/api/v1",
        auth=ApiKeyAuth(key=own_app.api_key),
        max_attempts=1,
    ).save("own-app", overwrite=True)
    yield Queue(broker, f"{kind.get_block_type_slug()}/depot")
    asyncio.run(broker.remove())


def item(sku, quantity):
    return {"sku": sku, "name": "x", "quantity": quantity}


def foreign(sku, quantity):
    return {"item": sku, "name": "x", "quantity": quantity}


def stock(own_app):
    return {record["sku"]: record["quantity"] for record in own_app.records("inventory")}


def test_what_waits_is_imported_and_bad_messages_are_dead_lettered(queue, runs, inbox, own_app):
    """Good messages are in and gone; a bad one is kept in the inbox, shown, and named."""
    queue.put(*(item(f"S{n}", n) for n in range(4)), item("bad", -1))
    state = runs.start(queue_import, **queue.parameters)
    assert state.is_failed()
    assert state.message.startswith("4 messages imported, 1 dead-lettered: quantity: ")
    again = runs.start(queue_import, **queue.parameters)
    assert (again.is_completed(), again.message) == (True, "0 messages imported")
    assert stock(own_app) == {f"S{n}": n for n in range(4)}
    [dead_lettered] = inbox.operations.select(DeliveryFilter(statuses=("dead_letter",)))
    assert "quantity" in dead_lettered.reason


def test_files_in_messages_go_through_the_readers(queue, runs, own_app):
    """A message may be a file of many records; its columns are mapped as a file's."""
    queue.put_bytes(b"Item;name;quantity\nA;x;1\nB;x;2\n")
    state = runs.start(
        queue_import,
        **queue.parameters,
        columns={"Item": "sku"},
        file={"file_format": {"kind": "csv", "delimiter": ";"}},
    )
    assert (state.is_completed(), state.message) == (True, "1 message imported, 2 records")
    assert stock(own_app) == {"A": 1, "B": 2}


def test_an_application_that_fails_leaves_the_messages_in_the_queue(queue, runs, own_app):
    """The run fails and gives back what it took; Retry imports it."""
    queue.put(item("A", 1), item("B", 2))
    own_app.behave("error", status=503, remaining=1)
    assert runs.start(queue_import, **queue.parameters, retries=0).is_failed()
    assert stock(own_app) == {}
    assert runs.retry(queue_import).message == "2 messages imported"
    assert stock(own_app) == {"A": 1, "B": 2}


@pytest.mark.parametrize("queue", ["rabbitmq"], indirect=True)
def test_a_limit_leaves_the_rest_for_the_next_run(queue, runs, own_app):
    """A run takes so many and says so; the next takes the others."""
    queue.put(*(item(f"S{n}", n) for n in range(5)))
    state = runs.start(queue_import, **queue.parameters, limit=3, batch_size=2)
    assert state.message == "3 messages imported; that is the limit for one run"
    assert runs.start(queue_import, **queue.parameters).message == "2 messages imported"
    assert len(stock(own_app)) == 5


def test_a_replayed_message_is_imported_by_the_next_run(queue, runs, inbox, own_app):
    """What is replayed goes in with what waits, once; if it cannot, it is dead-lettered again."""
    queue.put(foreign("A", 1), foreign("bad", -1))
    assert runs.start(queue_import, **queue.parameters).is_failed()
    inbox.operations.replay(DeliveryFilter(statuses=("dead_letter",)), dry_run=False)
    queue.put(foreign("B", 2))
    mended = {**queue.parameters, "columns": {"item": "sku"}}
    state = runs.start(queue_import, **mended)
    assert state.is_failed()
    assert state.message.startswith("2 messages imported, 1 dead-lettered: quantity: ")
    assert stock(own_app) == {"A": 1, "B": 2}
    assert {each.status for each in inbox.operations.select(DeliveryFilter())} == {
        "done",
        "dead_letter",
    }
    again = runs.start(queue_import, **mended)
    assert (again.is_completed(), again.message) == (True, "0 messages imported")


@pytest.mark.parametrize("queue", ["redis"], indirect=True)
def test_an_application_that_fails_leaves_replayed_messages_for_retry(queue, runs, inbox, own_app):
    """The run fails and gives back what it took from the inbox; Retry imports it."""
    queue.put(foreign("A", 1))
    assert runs.start(queue_import, **queue.parameters).is_failed()
    inbox.operations.replay(DeliveryFilter(statuses=("dead_letter",)), dry_run=False)
    own_app.behave("error", status=503, remaining=1)
    mended = {**queue.parameters, "columns": {"item": "sku"}}
    assert runs.start(queue_import, **mended, retries=0).is_failed()
    assert stock(own_app) == {}
    assert runs.retry(queue_import).message == "1 message imported"
    assert stock(own_app) == {"A": 1}
