"""The status of one source, for people: state, rate, lag and last error."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from blocks.errors import IntegrationError
from deployments.services.listeners.metrics import ListenerMetrics

_RATE_WINDOW_S = 60.0


@dataclass(slots=True)
class SourceStatus:
    """The current status of one source; each change is also counted in the metrics.

    Attributes:
        name: As declared.
        integration: The integration whose inbox its messages wait in.
        system: Where it is.
        metrics: Where changes are counted.
        state: "starting", "listening", "waiting for the inbox", "out of reach" or "stopped".
        counts: Messages by outcome, since the process started.
        lag: Messages waiting at the source; None if it does not report them.
        last_error: The last error, with its time; None if there was none.
        last_message_at: When the last message was stored.
        monotonic: Monotonic seconds.
    """

    name: str
    integration: str
    system: str
    metrics: ListenerMetrics
    state: str = "starting"
    counts: Counter[str] = field(default_factory=Counter)
    lag: int | None = None
    last_error: str | None = None
    last_message_at: datetime | None = None
    monotonic: Callable[[], float] = time.monotonic
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def enter(self, state: str) -> None:
        """Change the state."""
        if state != self.state:
            self.state = state
            is_connected = state in ("listening", "waiting for the inbox")
            self.metrics.connected.labels(self.name).set(is_connected)

    def note_error(self, stage: str, error: IntegrationError) -> None:
        """Record an error."""
        self.metrics.errors.labels(self.name, stage).inc()
        self.last_error = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC {error}"

    def note_lag(self, lag: int | None) -> None:
        """Record how many messages wait at the source."""
        self.lag = lag
        if lag is not None:
            self.metrics.lag.labels(self.name).set(lag)

    def note_messages(self, counts: Counter[str]) -> None:
        """Record messages that were stored and acknowledged."""
        self.counts += counts
        for outcome, count in counts.items():
            self.metrics.messages.labels(self.name, outcome).inc(count)
        self.last_message_at = datetime.now(UTC)
        now = self.monotonic()
        self._recent.append((now, counts.total()))
        self._forget(now)

    def as_json(self) -> dict[str, Any]:
        """Return the status for the page that lists the sources."""
        self._forget(self.monotonic())
        return {
            "name": self.name,
            "integration": self.integration,
            "system": self.system,
            "state": self.state,
            "messages": dict(self.counts),
            "per_minute": sum(count for _, count in self._recent),
            "lag": self.lag,
            "last_message_at": self.last_message_at and self.last_message_at.isoformat(),
            "last_error": self.last_error,
        }

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0][0] > _RATE_WINDOW_S:
            self._recent.popleft()
