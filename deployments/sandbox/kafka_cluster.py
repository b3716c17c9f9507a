"""A Kafka cluster on the loopback: the mock cluster that librdkafka brings for its own tests.

It speaks the real protocol to clients of any process: groups, rebalances, commits, transactions.
It keeps messages in memory, has neither SASL nor TLS, and ends with its process.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_PRODUCER = 0
_EVERY_BROKER = -1


@dataclass
class KafkaCluster:
    """A running cluster.

    Attributes:
        bootstrap_servers: As clients want it.
        brokers: How many.
    """

    bootstrap_servers: str
    brokers: int
    _library: Any
    _cluster: Any
    _stopped: bool = False

    def set_down(self, *, down: bool) -> None:
        """Cut all connections and refuse new ones, or take them again."""
        name = "rd_kafka_mock_broker_set_down" if down else "rd_kafka_mock_broker_set_up"
        for broker in range(1, self.brokers + 1):
            self._call(name, broker)

    def set_latency_s(self, latency_s: float) -> None:
        """Delay every answer."""
        self._call("rd_kafka_mock_broker_set_rtt", _EVERY_BROKER, int(latency_s * 1000))

    def fail_next(self, api_key: int, *error_codes: int) -> None:
        """Answer the next requests of one kind with these errors.

        Source: https://kafka.apache.org/protocol, "API Keys" and "Error Codes".
        """
        codes = (ctypes.c_int * len(error_codes))(*error_codes)
        self._call(
            "rd_kafka_mock_push_request_errors_array",
            ctypes.c_int16(api_key),
            ctypes.c_size_t(len(error_codes)),
            codes,
        )

    def stop(self) -> None:
        """Refuse all clients from now on; what is left of the cluster ends with the process.

        It is not destroyed: at the end of a long session `rd_kafka_mock_cluster_destroy` has
        crashed the process, for a reason that was not found.
        """
        if not self._stopped:
            self.set_down(down=True)
            self._stopped = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def create_topic(self, name: str, partitions: int) -> None:
        """Make a topic with exactly so many partitions."""
        self._call("rd_kafka_mock_topic_create", name.encode(), partitions, 1)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(self._cluster, *arguments)
        if isinstance(code, int) and code > 0:
            raise RuntimeError(f"{name} answered {code}")


_loading = threading.Lock()


def start(*, brokers: int = 1, topics: Mapping[str, int] | None = None) -> KafkaCluster:
    """Start a cluster in this process.

    Args:
        brokers: How many.
        topics: Name to the number of partitions; others are made when they are first used.
    """
    with _loading:
        library = _library()
        message = ctypes.create_string_buffer(512)
        settings = ctypes.c_void_p(library.rd_kafka_conf_new())
        client = ctypes.c_void_p(library.rd_kafka_new(_PRODUCER, settings, message, 512))
        cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(client, brokers))
    if not cluster:
        raise RuntimeError("librdkafka could not start its mock cluster")
    servers = library.rd_kafka_mock_cluster_bootstraps(cluster).decode()
    running = KafkaCluster(servers, brokers, library, cluster)
    # a real cluster waits some seconds for more members before it shares out partitions
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
    for name, partitions in (topics or {}).items():
        running.create_topic(name, partitions)
    return running


def _library() -> Any:
    """The librdkafka inside the wheel of confluent-kafka, whose functions Python cannot see."""
    import confluent_kafka

    package = Path(str(confluent_kafka.__file__)).parent
    [file] = (package.parent / "confluent_kafka.libs").glob("librdkafka-*.so*")
    library = ctypes.CDLL(str(file))
    for name in ("rd_kafka_new", "rd_kafka_conf_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library
