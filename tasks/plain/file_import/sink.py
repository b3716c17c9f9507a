"""Where imported records go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from blocks.errors import UpstreamRejectedError


@dataclass(frozen=True, slots=True)
class Sent:
    """What the application did with a batch."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0

    def __add__(self, other: Sent) -> Sent:
        return Sent(
            self.created + other.created,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
        )


class RecordSink(Protocol):
    """An application that takes batches of records, each batch wholly or not at all."""

    def send(self, records: bytes, *, count: int, idempotency_key: str) -> Sent:
        """Hand over one batch.

        Args:
            records: A JSON array of `count` objects.
            count: How many.
            idempotency_key: The same key with the same records has one effect, however often.

        Raises:
            UpstreamRejectedError: The application refuses; `details` names single records by
                "index", with "field" and "reason", if only those are at fault.
            TransientError: Retries are exhausted; trying again later may help.
        """
        ...


def refused_records(error: UpstreamRejectedError, *, count: int) -> dict[int, tuple[str, str]]:
    """Which records of a refused batch are at fault, as far as the application says.

    Args:
        error: What `RecordSink.send` raised.
        count: Records of the batch.

    Returns:
        Index to field, "" for the record as a whole, and reason; empty if the batch is refused
        for another reason than its records.
    """
    reasons: dict[int, list[str]] = {}
    fields: dict[int, str] = {}
    for detail in error.details:
        index = detail.get("index")
        if isinstance(index, int) and 0 <= index < count:
            reasons.setdefault(index, []).append(str(detail.get("reason", "refused")))
            fields.setdefault(index, str(detail.get("field", "")))
    return {
        index: (fields[index], f"refused by the application: {'; '.join(reasons[index])}")
        for index in sorted(reasons)
    }
