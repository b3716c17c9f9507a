"""What the listeners count, by source."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class ListenerMetrics:
    """Counters and gauges of all sources of this process.

    Attributes:
        messages: By source and what became of them: "new", "duplicate", "dead_letter" (kept, but
            nobody can read it) or "refused" (not kept).
        errors: By source and stage: "connect", "receive", "store" or "acknowledge".
        lag: Messages that wait at the source, where it tells.
        connected: 1 while subscribed.
        held: Messages taken and not yet stored, because the inbox does not take them.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.messages = Counter(
            "listener_messages", "Messages taken.", ("source", "outcome"), registry=registry
        )
        self.errors = Counter(
            "listener_errors", "What went wrong.", ("source", "stage"), registry=registry
        )
        self.lag = Gauge(
            "listener_lag_messages", "Messages waiting there.", ("source",), registry=registry
        )
        self.connected = Gauge(
            "listener_connected", "Whether it is subscribed.", ("source",), registry=registry
        )
        self.held = Gauge(
            "listener_held_messages", "Taken, not yet stored.", ("source",), registry=registry
        )

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)
