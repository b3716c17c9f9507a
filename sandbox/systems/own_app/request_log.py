"""What the application was asked, counted and listed, without any body."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any

_LISTED_REQUESTS = 1000


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request.

    Attributes:
        at: RFC 3339 instant of its arrival.
        method: The HTTP method.
        path: Without the query.
        route: The path with its business key replaced, e.g. "/api/v1/inventory/{key}".
        status: None when the connection was cut instead of answering.
        idempotency_key: As sent.
        replayed: Whether a stored answer was given again.
        records: How many records it brought or took.
        duration_ms: From its arrival to its answer.
    """

    at: str
    method: str
    path: str
    route: str
    status: int | None
    idempotency_key: str | None
    replayed: bool
    records: int
    duration_ms: float


class RequestLog:
    """Counts all requests and lists the last ones."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._records: Counter[str] = Counter()
        self._last: deque[LoggedRequest] = deque(maxlen=_LISTED_REQUESTS)

    def add(self, request: LoggedRequest) -> None:
        """Count and list one request."""
        name = f"{request.method} {request.route}"
        self._counts[name] += 1
        if request.status is not None and request.status < 300 and not request.replayed:
            self._records[name] += request.records
        self._last.append(request)

    def clear(self) -> None:
        """Begin anew."""
        self._counts.clear()
        self._records.clear()
        self._last.clear()

    def last(self, count: int) -> list[LoggedRequest]:
        """The newest requests, newest first."""
        return list(self._last)[: -count - 1 : -1]

    def report(self) -> dict[str, Any]:
        """Counts of requests, and of records of successful first answers, by method and route."""
        return {
            "total": self._counts.total(),
            "counts": dict(self._counts),
            "records": dict(self._records),
            "requests": [asdict(request) for request in self._last],
        }
