"""Sends batches of records to an application, without those that it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic_core import from_json, to_json

from blocks.errors import UpstreamRejectedError
from tasks.core.formats.records.validation import RecordValidator
from tasks.core.sync.batches.result import Counts
from tasks.core.sync.batches.sink import RecordSink, Refused
from tasks.core.threads import check_cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportJob:
    """What every import is told: what its records must be, and where they go.

    Attributes:
        sink: Takes the records.
        model: What a record must be; its JSON form is what the application gets.
        validator: Checks records against `model`.
    """

    sink: RecordSink
    model: type[BaseModel]
    validator: RecordValidator[BaseModel]

    def sender(self) -> BatchSender:
        """What sends them."""
        return BatchSender(self.sink, self.model)


class BatchSender:
    """Sends records of one model to one application.

    Args:
        sink: Takes the records.
        model: What they are; its JSON form is what the application gets.
    """

    def __init__(self, sink: RecordSink, model: type[BaseModel]) -> None:
        self._sink = sink
        self._serializer: TypeAdapter[list[Any]] = TypeAdapter(list[model])  # type: ignore[valid-type]

    def encode(self, items: Sequence[BaseModel]) -> bytes:
        """The JSON array of a batch."""
        return self._serializer.dump_json(list(items))

    def send(
        self,
        records: bytes,
        *,
        count: int,
        key_of: Callable[[str], str],
        refuse: Callable[[Refused], None],
    ) -> Counts:
        """Send a batch without those records that the application refuses.

        An application may name one bad record, the first ten, or all: what it names is taken out,
        and the rest sent again, until it takes the rest or nothing is left.

        Args:
            records: From `encode`; the same bytes whenever the batch is sent again.
            count: How many records these are.
            key_of: The idempotency key for records with this SHA-256, in hexadecimal: what is left
                depends on what the application refuses, and is another the next time, perhaps.
            refuse: Told of each refusal's records, by their index in the batch.

        Returns:
            What became of the batch.

        Raises:
            IntegrationError: As in `RecordSink.send`, of a refusal that names no record.
        """
        left = list(range(count))
        while left:
            check_cancelled()
            key = key_of(digest_of(records))
            try:
                sent = self._sink.send(records, count=len(left), idempotency_key=key)
            except UpstreamRejectedError as exc:
                named = _refused_records(exc, count=len(left))
                if not named:
                    raise
                refuse({left[at]: why for at, why in named.items()})
                kept = [at for at in range(len(left)) if at not in named]
                records = _only(records, kept)
                left = [left[at] for at in kept]
            else:
                return Counts.of(sent, records=len(left), rejected=count - len(left))
        return Counts(rejected=count)


def digest_of(records: bytes) -> str:
    """The SHA-256 of an encoded batch, in hexadecimal."""
    return hashlib.sha256(records).hexdigest()


def _only(records: bytes, kept: Sequence[int]) -> bytes:
    found = from_json(records)
    return to_json([found[index] for index in kept])


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
