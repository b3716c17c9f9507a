"""A Kafka cluster and its login."""

from __future__ import annotations

from prefect.blocks.core import Block

from blocks.connections.kafka import KafkaConnection


class KafkaCluster(KafkaConnection, Block):
    """A Kafka cluster: its brokers, TLS and SASL.

    Example:
        Send a message and wait until the brokers have it:
        ```python
        from blocks.kafka_cluster import KafkaCluster

        producer = KafkaCluster.load("BLOCK_NAME").get_producer()
        producer.produce("orders", b'{"type": "order.placed"}', key="S-1001")
        assert producer.flush(30) == 0
        ```
    """

    _block_type_name = "Kafka Cluster"
    _block_type_slug = "kafka-cluster"
