"""What the gateway counts, in a registry of its own."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

disable_created_metrics()  # they double the output and say when this process started


class Metrics:
    """The gateway's counters.

    Attributes:
        requests: By endpoint and outcome, as the access log names it.
        deliveries: By endpoint, "new" or "duplicate".
        seconds: From the request's first byte to its answer, by endpoint.
        in_progress: Requests being served.
        rings: Doorbell events, by integration and "rung" or "failed".
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self.requests = Counter(
            "gateway_requests",
            "Requests answered.",
            ("endpoint", "outcome"),
            registry=self._registry,
        )
        self.deliveries = Counter(
            "gateway_deliveries",
            "Deliveries on disk.",
            ("endpoint", "kind"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "gateway_request_seconds",
            "Seconds until the answer.",
            ("endpoint",),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self.in_progress = Gauge(
            "gateway_requests_in_progress", "Requests being served.", registry=self._registry
        )
        self.rings = Counter(
            "gateway_doorbell_rings",
            "Doorbell events sent to Prefect.",
            ("integration", "outcome"),
            registry=self._registry,
        )

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)
