"""A Kafka cluster on the loopback: the mock cluster that librdkafka brings for its own tests.

It speaks the real protocol to clients of any process: groups, rebalances, commits, transactions.
It keeps messages in memory and has neither SASL nor TLS: `kafka_gate` puts both before it. It
runs in a process of its own, since librdkafka has crashed the one that it was in.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

from sandbox.systems.stand_in import StandIn

_PRODUCER = 0
_EVERY_BROKER = -1


@dataclass
class KafkaCluster(StandIn):
    """A running cluster.

    Attributes:
        bootstrap_servers: As clients want it.
        brokers: How many.
    """

    bootstrap_servers: str
    brokers: int
    _process: subprocess.Popen[str]
    _one_at_a_time: Lock = field(default_factory=Lock)

    def set_down(self, *, down: bool) -> None:
        """Cut all connections and refuse new ones, or take them again."""
        name = "rd_kafka_mock_broker_set_down" if down else "rd_kafka_mock_broker_set_up"
        for broker in range(1, self.brokers + 1):
            self._call(name, broker)

    def set_silent(self, *, silent: bool) -> None:
        """Keep all connections and take new ones, and say nothing; or go on where it stopped."""
        self._process.send_signal(signal.SIGSTOP if silent else signal.SIGCONT)

    def set_latency_s(self, latency_s: float) -> None:
        """Delay every answer."""
        self._call("rd_kafka_mock_broker_set_rtt", _EVERY_BROKER, int(latency_s * 1000))

    def fail_next(self, api_key: int, *error_codes: int) -> None:
        """Answer the next requests of one kind with these errors.

        Source: https://kafka.apache.org/protocol, "API Keys" and "Error Codes".
        """
        self._call("rd_kafka_mock_push_request_errors_array", api_key, list(error_codes))

    def create_topic(self, name: str, partitions: int) -> None:
        """Make a topic with exactly so many partitions."""
        self._call("rd_kafka_mock_topic_create", name, partitions, 1)

    def stop(self) -> None:
        """Stop, and forget everything."""
        self._process.kill()
        self._process.communicate()

    def _call(self, name: str, *arguments: Any) -> None:
        with self._one_at_a_time:
            code = _exchange(self._process, [name, *arguments])
        if code:
            raise RuntimeError(f"{name} answered {code}")


def start(*, brokers: int = 1, topics: Mapping[str, int] | None = None) -> KafkaCluster:
    """Start a cluster; it ends with this process at the latest.

    Args:
        brokers: How many.
        topics: Name to the number of partitions; others are made when they are first used.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox.systems.kafka_cluster"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # librdkafka's remarks on a client without servers
        text=True,
    )
    running = KafkaCluster(_exchange(process, brokers), brokers, process)
    for name, partitions in (topics or {}).items():
        running.create_topic(name, partitions)
    return running


def _exchange(process: subprocess.Popen[str], request: Any) -> Any:
    """One line to the cluster's process and its answer."""
    assert process.stdin is not None, "started with pipes"  # noqa: S101
    assert process.stdout is not None, "started with pipes"  # noqa: S101
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())
    except (BrokenPipeError, json.JSONDecodeError) as exc:
        raise RuntimeError(f"the Kafka cluster has ended with status {process.wait()}") from exc


def main() -> NoReturn:
    """Be the cluster's process: a line with the number of brokers, then one for each call."""
    library = _library()
    brokers = json.loads(sys.stdin.readline())
    message = ctypes.create_string_buffer(512)
    settings = ctypes.c_void_p(library.rd_kafka_conf_new())
    client = ctypes.c_void_p(library.rd_kafka_new(_PRODUCER, settings, message, 512))
    cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(client, brokers))
    # a real cluster waits some seconds for more members before it shares out partitions
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
    print(json.dumps(library.rd_kafka_mock_cluster_bootstraps(cluster).decode()), flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(library, name)(cluster, *_in_c(arguments))), flush=True)
    os._exit(0)  # there is nothing to keep, and nothing to be gained by taking it down


def _in_c(arguments: list[Any]) -> list[Any]:
    """Texts as bytes, a list as its length and its numbers."""
    converted: list[Any] = []
    for argument in arguments:
        if isinstance(argument, str):
            converted.append(argument.encode())
        elif isinstance(argument, list):
            codes = (ctypes.c_int * len(argument))(*argument)
            converted += [ctypes.c_size_t(len(argument)), codes]
        else:
            converted.append(argument)
    return converted


def _library() -> Any:
    """The librdkafka inside the wheel of confluent-kafka, whose functions Python cannot see."""
    import confluent_kafka

    package = Path(str(confluent_kafka.__file__)).parent
    [file] = (package.parent / "confluent_kafka.libs").glob("librdkafka-*.so*")
    library = ctypes.CDLL(str(file))
    for name in ("rd_kafka_new", "rd_kafka_conf_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    library.rd_kafka_mock_push_request_errors_array.restype = None
    return library


if __name__ == "__main__":
    main()
