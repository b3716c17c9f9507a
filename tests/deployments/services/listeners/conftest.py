"""Every kind of source with a queue of its own, listened to by a real process's parts."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from sqlalchemy import Engine, text

from deployments.services.listeners.declarations import read_declarations
from deployments.services.listeners.listener import Pace
from deployments.services.listeners.service import Listeners
from sandbox.systems import fault_proxy, imap_server, kafka_cluster, s3_server
from sandbox.systems.message_brokers import (
    Broker,
    Kafka,
    Mailbox,
    Mqtt,
    Nats,
    RabbitMq,
    Redis,
    Sqs,
)
from tasks.core.state.database import open_database

FAST = Pace(poll_s=0.1, first_wait_s=0.05, max_wait_s=0.5, hold_every_s=0.2, lag_every_s=0.2)
ENDS_WITHIN_S = 60  # whatever else the machine does
KINDS = ("rabbitmq", "nats", "redis", "mqtt", "kafka", "sqs", "imap")


@pytest.fixture(scope="session")
def kafka() -> Iterator[kafka_cluster.KafkaCluster]:
    """A cluster of one broker."""
    with kafka_cluster.start() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def aws() -> Iterator[str]:
    """The address of a service that speaks SQS and SNS."""
    with s3_server.start() as service:
        yield service.endpoint_url


@pytest.fixture
def mailbox() -> Iterator[imap_server.ImapSandbox]:
    """An empty mailbox."""
    with imap_server.start() as server:
        yield server


@asynccontextmanager
async def _made(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    made: Broker
    if kind == "kafka":
        made = Kafka(request.getfixturevalue("kafka"))
    elif kind == "sqs":
        made = Sqs(request.getfixturevalue("aws"))
    elif kind == "imap":
        made = Mailbox(request.getfixturevalue("mailbox"))
    else:
        made = {"rabbitmq": RabbitMq, "nats": Nats, "redis": Redis, "mqtt": Mqtt}[kind]()
    try:
        await made.create()
    except OSError as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no {kind} broker on this machine ({exc})")
    yield made
    await made.remove()


@pytest.fixture
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    """The broker of the kind in `request.param`, with an empty queue."""
    async with _made(request.param, request) as made:
        yield made


@pytest.fixture
async def brokers(request: pytest.FixtureRequest) -> AsyncIterator[list[Broker]]:
    """One broker of each kind."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(_made(kind, request)) for kind in KINDS]


class Line:
    """The way to a broker.

    Attributes:
        fields: The declaration of a source that takes this way.
        port: Of 127.0.0.1, where it begins.
    """

    def __init__(self, broker: Broker, proxy: fault_proxy.FaultProxy | None) -> None:
        self._broker = broker
        self._proxy = proxy
        if proxy is not None:
            self.port = proxy.port
        elif isinstance(broker, Kafka):
            self.port = int(broker.cluster.bootstrap_servers.rpartition(":")[2])
        self.fields = broker.declaration("127.0.0.1", self.port)
        if broker.kind == "imap":
            self.fields["connection"]["timeout_s"] = 3  # nobody can interrupt its client before

    def set_silent(self, *, silent: bool) -> None:
        """Take connections and what is sent, and neither answer nor hang up; or go on."""
        if self._proxy is not None:
            self._proxy.swallow = silent
        elif isinstance(self._broker, Kafka):
            self._broker.cluster.set_silent(silent=silent)

    def is_used(self) -> bool:
        """Whether this process has a connection open there."""
        return any(
            each.raddr and each.raddr.port == self.port and each.status == psutil.CONN_ESTABLISHED
            for each in psutil.Process().net_connections("tcp4")
        )


@contextmanager
def _line(broker: Broker) -> Iterator[Line]:
    if broker.address is None:  # no proxy can stand before it
        line = Line(broker, None)
        yield line
        line.set_silent(silent=False)
        return
    with fault_proxy.start(broker.address) as proxy:
        yield Line(broker, proxy)


@pytest.fixture
def line(broker: Broker) -> Iterator[Line]:
    """The way to the broker; it can fall silent."""
    with _line(broker) as line:
        yield line


@pytest.fixture
def lines(brokers: list[Broker]) -> Iterator[list[Line]]:
    """The ways to all brokers."""
    with ExitStack() as stack:
        yield [stack.enter_context(_line(broker)) for broker in brokers]


class InboxView:
    """An inbox and what is in it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def rows(self) -> list[Any]:
        """All deliveries, in the order of arrival."""
        with self.engine.connect() as connection:
            return list(
                connection.execute(
                    text(
                        "SELECT d.*, r.headers, r.body, r.content_type, p.payload"
                        " FROM inbox_deliveries d JOIN inbox_requests r ON r.id = d.request_id"
                        " LEFT JOIN inbox_payloads p ON p.delivery_id = d.id ORDER BY d.seq"
                    )
                )
            )

    def bodies(self) -> list[bytes]:
        """The raw bodies, in the order of arrival."""
        return [bytes(row.body) for row in self.rows()]

    def count(self) -> int:
        """How many deliveries there are."""
        with self.engine.connect() as connection:
            return connection.execute(text("SELECT count(*) FROM inbox_deliveries")).scalar_one()


@pytest.fixture
def inbox(migrated_sqlite: Path, tmp_path: Path) -> Iterator[InboxView]:
    """An empty inbox in a file."""
    path = tmp_path / "state.db"
    shutil.copy(migrated_sqlite, path)
    engine = open_database(f"sqlite:///{path}")
    yield InboxView(engine)
    engine.dispose()


Declare = Callable[..., Any]


@pytest.fixture
def declare(tmp_path: Path) -> Declare:
    """Declared sources from fields as a `sources.yaml` has them."""

    def declare(environment: dict[str, str] | None = None, **sources: dict[str, Any]) -> Any:
        file = tmp_path / "sources.yaml"
        file.write_text(
            yaml.safe_dump({"integration": "stream_intake", "sources": sources}, sort_keys=False)
        )
        return read_declarations([file], environment or {})

    return declare


@pytest.fixture
def listening(declare: Declare, inbox: InboxView) -> Callable[..., Any]:
    """A context manager that listens to one source as long as its block lasts."""

    @asynccontextmanager
    async def listening(
        fields: dict[str, Any],
        *,
        engine: Engine | None = None,
        crash: bool = False,
        notified: list[str] | None = None,
        pace: Pace = FAST,
    ) -> AsyncIterator[Listeners]:
        listeners = Listeners(
            engine or inbox.engine,
            declare(orders=fields),
            notify=lambda integration: None if notified is None else notified.append(integration),
            pace=pace,
        )
        until = asyncio.Event()
        running = asyncio.create_task(listeners.run(until))
        try:
            yield listeners
        finally:
            running.cancel() if crash else until.set()
            await asyncio.wait({running}, timeout=ENDS_WITHIN_S)
            assert running.done(), "it listens on"
            if not running.cancelled():
                running.result()

    return listening


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Waits until something holds; fails, with what was seen last, if it never does."""

    async def eventually(look: Callable[[], Any], expected: Any, *, timeout_s: float = 20) -> None:
        seen = None
        for _ in range(int(timeout_s / 0.02)):
            seen = await asyncio.to_thread(look)
            if seen == expected:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"expected {expected!r}, saw {seen!r}")

    return eventually
