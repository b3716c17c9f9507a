"""Partners that announce orders over Kafka, SQS and e-mail, each over its real protocol."""

from __future__ import annotations

import importlib
import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sandbox.systems import imap_server, kafka_cluster
from sandbox.systems.imap_server import ImapSandbox
from sandbox.systems.kafka_cluster import KafkaCluster
from sandbox.systems.order_mail import order_mail
from sandbox.systems.stand_in import StandIn

_TOPIC = "orders"
_CUSTOMERS = ("Ada Okafor", "Bruno Marques", "Chloé Lefèvre", "Haruka Satō")


@dataclass
class OrderEvents(StandIn):
    """The running stand-ins.

    Attributes:
        kafka: A cluster with the topic "orders".
        mailbox: Where a partner's mails arrive.
    """

    kafka: KafkaCluster
    mailbox: ImapSandbox
    _sqs: Any
    _sqs_endpoint: str
    _queue_url: str
    _producer: Any
    _sent: int = 0

    def environment(self) -> dict[str, str]:
        """What listeners need to reach them, as `flows/stream_intake/sources.yaml` names it."""
        return {
            "ORDERS_KAFKA_SERVERS": self.kafka.bootstrap_servers,
            "ORDERS_KAFKA_SECURITY": "plaintext",
            "ORDERS_SQS_URL": self._queue_url,
            "ORDERS_SQS_ENDPOINT": self._sqs_endpoint,
            "ORDERS_SQS_REGION": "us-east-1",
            "ORDERS_SQS_KEY_ID": "sandbox",
            "ORDERS_SQS_SECRET": "sandbox",
            "ORDERS_MAIL_HOST": "127.0.0.1",
            "ORDERS_MAIL_PORT": str(self.mailbox.port),
            "ORDERS_MAIL_TLS": "false",
            "ORDERS_MAIL_USER": self.mailbox.username,
            "ORDERS_MAIL_PASSWORD": self.mailbox.password,
        }

    def send(self) -> list[str]:
        """Announce one order over each; returns what was sent."""
        orders = {way: self._order(way) for way in ("kafka", "sqs", "mail")}
        event = json.dumps({"type": "order.placed", "order": orders["kafka"]})
        self._producer.produce(_TOPIC, event, key=orders["kafka"]["order_no"])
        if self._producer.flush(10):
            raise TimeoutError("the Kafka cluster did not take an order")
        event = json.dumps({"type": "order.placed", "order": orders["sqs"]})
        self._sqs.send_message(QueueUrl=self._queue_url, MessageBody=event)
        self.mailbox.deliver(order_mail(json.dumps([orders["mail"]]).encode()))
        return [f"{way}: order {order['order_no']}" for way, order in orders.items()]

    def stop(self) -> None:
        """Stop, and forget everything."""
        self.mailbox.stop()
        self.kafka.stop()

    def _order(self, way: str) -> dict[str, Any]:
        self._sent += 1
        now = datetime.now(UTC)
        quantity = random.randint(1, 9)
        return {
            "order_no": f"{way[0].upper()}-{now:%m%d%H%M%S}-{self._sent:03}",
            "customer": random.choice(_CUSTOMERS),
            "ordered_at": now.isoformat(),
            "total": f"{quantity * 1.5:.2f}",
            "currency": "EUR",
            "lines": [{"sku": "000017", "quantity": quantity, "unit_price": "1.50"}],
        }


def start(sqs_endpoint: str) -> OrderEvents:
    """Start a Kafka cluster and a mailbox, and make a queue.

    Args:
        sqs_endpoint: A running service that speaks SQS, such as that of `s3_server`.
    """
    from confluent_kafka import Producer

    boto3: Any = importlib.import_module("boto3")  # each service's types are a package
    sqs = boto3.client(
        "sqs",
        endpoint_url=sqs_endpoint,
        region_name="us-east-1",
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",  # noqa: S106 - a stand-in's, not a secret
    )
    kafka = kafka_cluster.start(topics={_TOPIC: 4})
    return OrderEvents(
        kafka=kafka,
        mailbox=imap_server.start(),
        _sqs=sqs,
        _sqs_endpoint=sqs_endpoint,
        _queue_url=sqs.create_queue(QueueName=_TOPIC)["QueueUrl"],
        # quiet when the cluster stops before it
        _producer=Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0}),
    )
