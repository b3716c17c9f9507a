"""The listeners' metrics, by source."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class ListenerMetrics:
    """Counters and gauges of all sources of this process.

    Attributes:
        messages: By source and outcome: "new", "duplicate", "dead_letter" (stored, but
            unreadable) or "refused" (not stored).
        errors: By source and stage: "connect", "receive", "store" or "acknowledge".
        lag: Messages that wait at the source, if it reports them.
        connected: 1 while subscribed.
        held: Messages received but not yet stored, because the inbox does not accept them.
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
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
