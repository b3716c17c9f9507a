"""Blocks of brokers and mailboxes: the listeners' settings with a form in the Prefect UI."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from blocks.imap_mailbox import ImapMailbox
from blocks.kafka_cluster import KafkaCluster
from blocks.mqtt_broker import MqttBroker
from blocks.nats_server import NatsServer
from blocks.rabbitmq_broker import RabbitMqBroker
from blocks.redis_server import RedisServer
from blocks.sqs_queue import SqsQueue

LOGIN = {"host": "h.example", "username": "u", "password": "s3cret"}
SQS = {"queue_url": "https://sqs.eu-central-1.amazonaws.com/1/q", "access_key_id": "k"}
BLOCKS = {
    SqsQueue: {**SQS, "secret_access_key": "s3cret"},
    KafkaCluster: {
        "bootstrap_servers": "b:1",
        "security": "sasl_ssl",
        "username": "u",
        "password": "s3cret",
    },
    ImapMailbox: LOGIN,
    RabbitMqBroker: LOGIN,
    NatsServer: LOGIN,
    MqttBroker: LOGIN,
    RedisServer: LOGIN,
}
each_block = pytest.mark.parametrize(("kind", "fields"), BLOCKS.items(), ids=lambda v: str(v)[:30])


@each_block
def test_secrets_stay_hidden_and_fields_are_described(kind, fields):
    """A password is in no repr and no dump, and the form explains every field."""
    block = kind(**fields)
    assert "s3cret" not in repr(block)
    assert "s3cret" not in str(block.model_dump())
    assert "s3cret" not in block.system
    own = {n: f for n, f in kind.model_fields.items() if n != "block_type_slug"}
    assert [n for n, f in own.items() if not (f.description or "").rstrip().endswith(".")] == []
    assert kind.get_description()
    assert "BLOCK_NAME" in kind.get_code_example()


@each_block
def test_connections_are_encrypted_unless_said_otherwise(kind, fields):
    """TLS is on by default, and certificates are verified."""
    block = kind(**fields)
    if hasattr(block, "tls"):
        context = block.tls_context("x")
        assert context.check_hostname
        assert context.verify_mode.name == "CERT_REQUIRED"


def test_half_a_login_is_refused():
    """SASL without a user, and a key id without its secret, are mistakes of the form."""
    with pytest.raises(ValidationError, match="sasl needs username"):
        KafkaCluster(bootstrap_servers="b:1", security="sasl_ssl")
    with pytest.raises(ValidationError, match="give both"):
        SqsQueue(**SQS)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_librdkafka_takes_the_settings_of_every_login(mechanism):
    """The cluster's settings are those that the client library knows."""
    fields = BLOCKS[KafkaCluster] | {"sasl_mechanism": mechanism}
    assert KafkaCluster(**fields).get_producer() is not None
