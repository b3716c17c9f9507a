"""Where imported records go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Refused: TypeAlias = Mapping[int, tuple[str, str]]
"""Index of a record to the field at fault, "" for the record as a whole, and the reason."""


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
