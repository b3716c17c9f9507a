"""What the gateway counts, in a registry of its own."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

disable_created_metrics()  # type: ignore[no-untyped-call] # they double the output and say when this process started


class Metrics:
    """The gateway's counters.

    Attributes:
        requests: By endpoint and outcome, as the access log names it.
        deliveries: By endpoint, "new" or "duplicate".
        seconds: From the request's first byte to its answer, by endpoint.
        notifications: By integration and "sent" or "failed".
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._by_outcome: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._by_kind: dict[tuple[str, bool], Counter] = {}
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
        self.notifications = Counter(
            "gateway_notifications",
            "Events sent to Prefect.",
            ("integration", "outcome"),
            registry=self._registry,
        )

    def count_request(self, endpoint: str, outcome: str, seconds: float) -> None:
        """A request was answered."""
        found = self._by_outcome.get((endpoint, outcome))
        if found is None:
            # Looking a label up costs more than counting; there are few endpoints and outcomes.
            found = (self.requests.labels(endpoint, outcome), self.seconds.labels(endpoint))
            self._by_outcome[endpoint, outcome] = found
        found[0].inc()
        found[1].observe(seconds)

    def count_delivery(self, endpoint: str, *, is_new: bool) -> None:
        """A delivery is on disk."""
        found = self._by_kind.get((endpoint, is_new))
        if found is None:
            found = self.deliveries.labels(endpoint, "new" if is_new else "duplicate")
            self._by_kind[endpoint, is_new] = found
        found.inc()

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)
