"""Where imported records go."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from blocks.errors import UpstreamRejectedError
from tasks.core.threads import check_cancelled

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


def send_without_refused(
    sink: RecordSink,
    count: int,
    *,
    records_of: Callable[[Sequence[int]], bytes],
    key_of: Callable[[str], str],
    refuse: Callable[[Refused], None],
) -> tuple[Sent, int]:
    """Send a batch without those records that the application refuses.

    An application may name one bad record, the first ten, or all: what it names is taken out, and
    the rest sent again, until it takes the rest or nothing is left.

    Args:
        sink: Where to.
        count: Records of the batch.
        records_of: Those with these indexes, as JSON array.
        key_of: The idempotency key for records with this SHA-256, in hexadecimal: what is left
            depends on what the application refuses, and is another the next time, perhaps.
        refuse: Told of each refusal's records, by their index in the batch.

    Returns:
        What the application did, and how many it took.

    Raises:
        IntegrationError: As in `RecordSink.send`, of a refusal that names no record.
    """
    left: Sequence[int] = range(count)
    while left:
        check_cancelled()
        records = records_of(left)
        key = key_of(hashlib.sha256(records).hexdigest())
        try:
            return sink.send(records, count=len(left), idempotency_key=key), len(left)
        except UpstreamRejectedError as exc:
            named = _refused_records(exc, count=len(left))
            if not named:
                raise
            refuse({left[at]: why for at, why in named.items()})
            left = [index for at, index in enumerate(left) if at not in named]
    return Sent(), 0


def _refused_records(error: UpstreamRejectedError, *, count: int) -> Refused:
    """Which records of a refused batch are at fault, as far as the application says."""
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
