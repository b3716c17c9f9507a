"""Batches reach the application without what it refuses, under keys that stay."""

from __future__ import annotations

import json
from decimal import Decimal

from pydantic import BaseModel

from blocks.errors import UpstreamRejectedError
from tasks.core.sync.batches.result import Counts
from tasks.core.sync.batches.sender import BatchSender
from tasks.core.sync.batches.sink import Sent


class Item(BaseModel):
    sku: str
    number: int = 2**80
    weight: float = 0.1
    price: Decimal = Decimal("1.10")
    note: str | None = "größer \u2028 \x01"


class Shelf:
    """An application in memory that names one refused record at a time."""

    def __init__(self, *refuses: str) -> None:
        self.refuses = refuses
        self.taken: list[tuple[str, bytes]] = []

    def send(self, records, *, count, idempotency_key):
        for index, record in enumerate(json.loads(records)):
            if record["sku"] in self.refuses:
                details = ({"index": index, "field": "sku", "reason": "unknown"},)
                raise UpstreamRejectedError("no", system="x", operation="send", details=details)
        self.taken.append((idempotency_key, records))
        return Sent(created=count)


def send(shelf, *skus):
    refused = {}
    sender = BatchSender(shelf, Item)
    counts = sender.send(
        sender.encode([Item(sku=sku) for sku in skus]),
        count=len(skus),
        key_of=lambda digest: f"root-{digest}",
        refuse=refused.update,
    )
    return counts, refused


def test_what_is_left_is_sent_as_if_the_refused_had_never_been_there():
    """Bytes and key are those of the good records alone; refusals are told by their first index."""
    one_by_one, alone = Shelf("b", "d"), Shelf()
    counts, refused = send(one_by_one, "a", "b", "c", "d", "e")
    send(alone, "a", "c", "e")
    assert one_by_one.taken == alone.taken
    assert counts == Counts(records=3, rejected=2, created=3)
    assert refused == dict.fromkeys((1, 3), ("sku", "refused by the application: unknown"))


def test_nothing_is_sent_when_nothing_is_left():
    """A batch that is refused wholly counts as rejected."""
    shelf = Shelf("a")
    assert send(shelf, "a")[0] == Counts(rejected=1)
    assert shelf.taken == []
