"""Connections with TLS and logins, against servers that demand them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import uuid
from contextlib import contextmanager

import pytest

from sandbox.systems import imap_server, kafka_gate, tls_proxy
from sandbox.systems.certificate import loopback_certificate, server_tls
from sandbox.systems.message_brokers import Mailbox, RabbitMq
from sandbox.systems.order_mail import order_mail

# clients leave sockets whose handshake failed to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
BODY = json.dumps({"id": "O-1"}).encode()


class Encrypted:
    """A server that wants TLS, and one message in it.

    Attributes:
        fields: Its declaration.
        publish: Sends the message, over a connection of the same kind.
    """

    def __init__(self, fields, publish) -> None:
        self.fields = fields
        self.publish = publish


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of the loopback, which is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    loopback_certificate(folder)
    folder.chmod(0o755)
    return folder


def tls(certificate, *, with_own=False):
    file, key = loopback_certificate(certificate)
    own = {"certificate_file": str(file), "key_file": str(key)} if with_own else {}
    return {"host": "127.0.0.1", "tls": True, "ca_file": str(file), **own}


@contextmanager
def server(program, *arguments, port):
    """A process that listens; skips where the program is not installed."""
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        if os.environ.get("CI"):
            raise RuntimeError(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    process = subprocess.Popen(
        [path, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(500):
            assert process.poll() is None, f"{program} ended with status {process.returncode}"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def redis(certificate, tmp_path):
    """A Redis that wants a client's certificate and a password."""
    from blocks.connections.redis import RedisConnection

    file, key = loopback_certificate(certificate)
    port = free_port()
    options = {
        "--port": "0", "--tls-port": str(port), "--bind": "127.0.0.1", "--dir": str(tmp_path),
        "--tls-cert-file": str(file), "--tls-key-file": str(key), "--tls-ca-cert-file": str(file),
        "--tls-auth-clients": "yes", "--requirepass": "s3cret", "--save": "",
    }  # fmt: skip
    connection = {**tls(certificate, with_own=True), "port": port, "password": "s3cret"}

    async def publish():
        async with RedisConnection(**connection).get_client() as client:
            await client.xadd("orders", {"body": BODY})

    with server("redis-server", *(part for pair in options.items() for part in pair), port=port):
        yield Encrypted({"kind": "redis", "connection": connection, "stream": "orders"}, publish)


@pytest.fixture
def nats(certificate, tmp_path):
    """A NATS server that wants a client's certificate and a login."""
    from blocks.connections.nats import NatsConnection

    file, key = loopback_certificate(certificate)
    port = free_port()
    config = tmp_path / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{tmp_path}/js" }}\n'
        f'tls {{ cert_file: "{file}", key_file: "{key}", ca_file: "{file}", verify: true }}\n'
        "authorization { user: app, password: s3cret }\n"
    )
    login = {"username": "app", "password": "s3cret"}
    connection = {**tls(certificate, with_own=True), "port": port, **login}

    async def publish():
        client = await NatsConnection(**connection).get_client()
        await client.jetstream().add_stream(name="orders", subjects=["orders"])
        await client.jetstream().publish("orders", BODY)
        await client.close()

    with server("nats-server", "-c", str(config), port=port):
        yield Encrypted({"kind": "nats", "connection": connection, "stream": "orders"}, publish)


@pytest.fixture
def mqtt(certificate, tmp_path):
    """A Mosquitto that wants a client's certificate and a login."""
    from blocks.connections.mqtt import MqttConnection

    file, key = loopback_certificate(certificate)
    port = free_port()
    passwords = tmp_path / "passwords"
    maker = shutil.which("mosquitto_passwd")
    if maker is None:
        pytest.skip("mosquitto_passwd is not installed")
    subprocess.run([maker, "-b", "-c", str(passwords), "app", "s3cret"], check=True)
    config = tmp_path / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\ncafile {file}\ncertfile {file}\nkeyfile {key}\n"
        f"require_certificate true\nallow_anonymous false\npassword_file {passwords}\nuser root\n"
    )
    login = {"username": "app", "password": "s3cret"}
    connection = {**tls(certificate, with_own=True), "port": port, **login}

    def publish_blocking():
        client = MqttConnection(**connection).get_client("publisher")
        client.connect("127.0.0.1", port, clean_start=True)
        client.loop_start()
        client.publish("orders", BODY, qos=1, retain=True).wait_for_publish(10)
        client.disconnect()
        client.loop_stop()

    with server("mosquitto", "-c", str(config), port=port):
        yield Encrypted(
            {"kind": "mqtt", "connection": connection, "topics": ["orders"]},
            lambda: asyncio.to_thread(publish_blocking),
        )


@pytest.fixture
async def rabbitmq(certificate):
    """The RabbitMQ of this machine behind TLS."""
    broker = RabbitMq()
    try:
        await broker.create()
    except OSError as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no RabbitMQ on this machine ({exc})")
    with tls_proxy.start(broker.address, server_tls(certificate)) as proxy:
        fields = broker.declaration("127.0.0.1", proxy.port)
        fields["connection"] |= tls(certificate)
        yield Encrypted(fields, lambda: broker.publish([BODY]))
    await broker.remove()


@pytest.fixture
def imap(certificate):
    """A mailbox behind TLS."""
    with (
        imap_server.start() as mailbox,
        tls_proxy.start(("127.0.0.1", mailbox.port), server_tls(certificate)) as proxy,
    ):
        fields = Mailbox(mailbox).declaration("", proxy.port)
        fields["connection"] |= tls(certificate)
        deliver = lambda: asyncio.to_thread(mailbox.deliver, order_mail(BODY))  # noqa: E731
        yield Encrypted(fields, deliver)


class SecuredKafka:
    """The stand-in cluster behind a gate, with one topic.

    Attributes:
        connection: How to reach it: login by default, and our certificate.
    """

    def __init__(self, gate, certificate, cluster) -> None:
        file, key = loopback_certificate(certificate)
        self.topic = f"test-{uuid.uuid4().hex[:12]}"
        cluster.create_topic(self.topic, 1)
        self.connection = {
            "bootstrap_servers": f"127.0.0.1:{gate.port}", "security": "sasl_ssl",
            "username": "app", "password": "s3cret", "ca_file": str(file),
            "certificate_file": str(file), "key_file": str(key),
            "properties": {"session.timeout.ms": "1500", "heartbeat.interval.ms": "300"},
        }  # fmt: skip

    def fields(self, **changes):
        connection = self.connection | changes
        return {"kind": "kafka", "connection": connection, "topics": [self.topic]}

    async def publish(self, **changes):
        from blocks.connections.kafka import KafkaConnection

        producer = KafkaConnection(**self.connection | changes).get_producer()
        producer.produce(self.topic, BODY)
        assert await asyncio.to_thread(producer.flush, 10) == 0


@pytest.fixture
def secured_kafka(certificate, kafka):
    """A cluster that wants a client's certificate and a login."""
    tls = server_tls(certificate)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(loopback_certificate(certificate)[0])
    passwords = {"app": "s3cret"}
    with kafka_gate.start(kafka.bootstrap_servers, tls=tls, passwords=passwords) as gate:
        yield SecuredKafka(gate, certificate, kafka)


@pytest.fixture
def encrypted_kafka(secured_kafka):
    """The same as the other kinds are seen."""
    return Encrypted(secured_kafka.fields(), secured_kafka.publish)


KINDS = ("redis", "nats", "mqtt", "rabbitmq", "imap", "encrypted_kafka")


@pytest.fixture(params=KINDS)
def encrypted(request):
    """A server of each kind."""
    return request.getfixturevalue(request.param)


async def test_messages_come_over_tls(encrypted, listening, inbox, eventually):
    """With the server's authority, our certificate and a login, everything works as without."""
    await encrypted.publish()
    async with listening(encrypted.fields):
        await eventually(inbox.count, 1)


async def test_a_server_that_nobody_vouches_for_is_not_talked_to(
    encrypted, listening, inbox, eventually
):
    """Without its authority the connection is refused by us, and the source says so."""
    await encrypted.publish()
    untrusting = {**encrypted.fields["connection"], "ca_file": None}
    async with listening({**encrypted.fields, "connection": untrusting}) as listeners:
        [status] = listeners.statuses
        await eventually(lambda: status.last_error is not None, True)
        assert status.state != "listening"
    assert inbox.count() == 0
    assert "s3cret" not in status.last_error


@pytest.mark.parametrize("encrypted", ["redis", "nats", "mqtt", "encrypted_kafka"], indirect=True)
async def test_a_wrong_password_is_told(encrypted, listening, eventually):
    """The refused login is named as what is to be mended."""
    await encrypted.publish()
    wrong = {**encrypted.fields["connection"], "password": "wr0ng"}
    async with listening({**encrypted.fields, "connection": wrong}) as listeners:
        [status] = listeners.statuses
        await eventually(lambda: status.last_error is not None, True)
    assert "wr0ng" not in status.last_error
    assert any(word in status.last_error for word in ("refused", "login"))


@pytest.mark.parametrize("mechanism", kafka_gate.MECHANISMS)
async def test_each_way_to_log_in_to_kafka_works(
    secured_kafka, mechanism, listening, inbox, eventually
):
    """Consumer and producer log in by the block's mechanism; a wrong password is refused."""
    await secured_kafka.publish(sasl_mechanism=mechanism)
    async with listening(secured_kafka.fields(sasl_mechanism=mechanism)):
        await eventually(inbox.count, 1)
    wrong = secured_kafka.fields(sasl_mechanism=mechanism, password="wr0ng")
    async with listening(wrong) as listeners:
        [status] = listeners.statuses
        await eventually(lambda: "the cluster refused access" in (status.last_error or ""), True)
    assert "wr0ng" not in status.last_error


async def test_a_kafka_broker_of_another_authority_is_named(
    secured_kafka, tmp_path, listening, eventually
):
    """It is told that the broker's certificate is at fault and which setting to look at."""
    other, _ = loopback_certificate(tmp_path / "other")
    async with listening(secured_kafka.fields(ca_file=str(other))) as listeners:
        [status] = listeners.statuses
        await eventually(lambda: "check ca_file" in (status.last_error or ""), True)


@pytest.mark.parametrize(
    "missing", [{"certificate_file": None, "key_file": None}, {"security": "ssl"}]
)
async def test_kafka_takes_nothing_from_who_lacks_a_certificate_or_a_login(
    secured_kafka, missing, listening, inbox, eventually
):
    """The gate demands both, so that the other tests prove that both are given."""
    await secured_kafka.publish()
    async with listening(secured_kafka.fields(**missing)) as listeners:
        [status] = listeners.statuses
        await eventually(lambda: "check security, login" in (status.last_error or ""), True)
    assert inbox.count() == 0
