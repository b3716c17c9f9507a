"""10,000 messages through three kills, three cut connections and three lost databases."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg
import yaml

from benchmarks.harness.databases import POSTGRESQL, new_database, postgresql_url
from benchmarks.listeners import sqs_service
from sandbox.systems import fault_proxy, imap_server, kafka_cluster
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

COUNT = int(os.environ.get("COUNT", "10000"))
KINDS = ("rabbitmq", "nats", "redis", "mqtt", "kafka", "sqs", "imap")


class Run:
    """One kind's run: a listener process that is started again whenever it is killed."""

    def __init__(self, directory: Path, declaration: dict, database_url: str) -> None:
        file = directory / "sources.yaml"
        document = {"integration": "faults", "sources": {"faults": declaration}}
        file.write_text(yaml.safe_dump(document))
        self._environment = os.environ | {
            "INTEGRATIONS_SOURCES": str(file),
            "INTEGRATIONS_DATABASE_URL": database_url,
            "PREFECT_API_URL": "http://127.0.0.1:9/api",  # the notifier finds nobody
        }
        self._log = (directory / "listener.log").open("ab")
        self.told = ""
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start it."""
        command = [sys.executable, "-m", "deployments.listeners", "--port", "0"]
        return subprocess.Popen(command, env=self._environment, stdout=self._log, stderr=self._log)

    def kill(self) -> None:
        """Kill it, and start another."""
        self.process.kill()
        self.process.wait()
        self.process = self.start()

    def stop(self) -> None:
        """Let it finish what it took."""
        self.process.terminate()
        self.process.wait(60)
        self._log.close()
        self.told = Path(self._log.name).read_text()


async def survive(kind: str) -> None:
    with ExitStack() as stack:
        name = stack.enter_context(new_database())
        open_database(postgresql_url(name)).dispose()
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = made(kind, stack)
        await broker.create()
        database = stack.enter_context(fault_proxy.start(POSTGRESQL))
        cuts: list[Callable[[bool], None]] = [lambda is_cut: switch(database, is_cut)]
        if broker.address is None:
            assert isinstance(broker, Kafka)
            cluster = broker.cluster
            cuts.append(lambda is_cut: cluster.set_down(down=is_cut))
            declaration = broker.declaration("", 0)
        else:
            proxy = stack.enter_context(fault_proxy.start(broker.address))
            cuts.append(lambda is_cut: switch(proxy, is_cut))
            declaration = broker.declaration(proxy.host, proxy.port)
        run = Run(directory, declaration, postgresql_url(name, database.port))
        begun = time.perf_counter()
        try:
            await feed(broker, run, cuts)
            await settle(name)
        finally:
            run.stop()
            await broker.remove()
        took = time.perf_counter() - begun
        stored = bodies(name, kind)
    sent = {json.dumps({"id": f"F-{n}"}).encode() for n in range(COUNT)}
    lost, doubled = len(sent - set(stored)), len(stored) - len(set(stored))
    print(
        f"{kind:9} {len(stored)} stored in {took:.0f} s: {lost} lost, {doubled} doubled", flush=True
    )
    if lost or doubled:
        print(run.told[-3000:], flush=True)
        sys.exit(1)


async def feed(broker: Broker, run: Run, cuts: list[Callable[[bool], None]]) -> None:
    """Publish in nine parts; with each, one thing fails."""
    part = -(-COUNT // 9)
    await asyncio.sleep(3)
    for number in range(9):
        publishing = asyncio.create_task(
            broker.publish(
                [
                    json.dumps({"id": f"F-{n}"}).encode()
                    for n in range(number * part, min(COUNT, (number + 1) * part))
                ]
            )
        )
        await asyncio.sleep(0.3)
        if number % 3 == 0:
            run.kill()
        else:
            cut = cuts[number % 3 - 1]
            if broker.address is None:
                await publishing  # the publisher has no other way in
            cut(True)
            await asyncio.sleep(2)
            cut(False)
        await publishing
        await asyncio.sleep(3)


def switch(proxy: fault_proxy.FaultProxy, is_cut: bool) -> None:
    proxy.cut_after_bytes, proxy.refuse = (0, True) if is_cut else (None, False)


async def settle(name: str) -> None:
    """Wait until all are there, or no more come, and a little longer for any that should not."""
    url = postgresql_url(name)
    seen, still = -1, 0
    while seen < COUNT and still < 120:
        with psycopg.connect(url) as connection:
            [count] = connection.execute("SELECT count(*) FROM inbox_deliveries").fetchone() or [0]
        still = still + 1 if count == seen else 0
        seen = count
        await asyncio.sleep(0.5)
    await asyncio.sleep(5)


def bodies(name: str, kind: str) -> list[bytes]:
    url = postgresql_url(name)
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT r.body FROM inbox_deliveries d JOIN inbox_requests r ON r.id = d.request_id"
        ).fetchall()
    if kind != "imap":
        return [bytes(body) for (body,) in rows]
    from tasks.core.connectors.messages.received_mail import read_mail

    return [read_mail(bytes(body)).attachments[0].content for (body,) in rows]


def made(kind: str, stack: ExitStack) -> Broker:
    if kind == "kafka":
        return Kafka(stack.enter_context(kafka_cluster.start()))
    if kind == "sqs":
        return Sqs(stack.enter_context(sqs_service.started()))
    if kind == "imap":
        return Mailbox(stack.enter_context(imap_server.start()))
    if kind == "mqtt":
        return Mqtt(stack.enter_context(mosquitto()))
    return {"rabbitmq": RabbitMq, "nats": Nats, "redis": Redis}[kind]()


class mosquitto:  # noqa: N801 - a context manager
    """A broker that keeps all messages for a session: by default it drops what exceeds 1,000."""

    def __enter__(self) -> int:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self._directory = tempfile.TemporaryDirectory()
        file = Path(self._directory.name) / "mosquitto.conf"
        file.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nuser root\n"
        )
        self._process = subprocess.Popen(
            ["mosquitto", "-c", str(file)],
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PATH": os.environ["PATH"] + ":/usr/sbin"},
        )
        time.sleep(1)
        return int(port)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._directory.cleanup()


if __name__ == "__main__":
    for each in sys.argv[1:] or KINDS:
        asyncio.run(survive(each))
