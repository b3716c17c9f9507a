"""What is given to the inbox to store, and what comes back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Table


@dataclass(slots=True)
class NewDelivery:
    """One event that has been verified and waits to be stored.

    Attributes:
        integration: Whose runs shall take it, e.g. "inventory_updates".
        endpoint: Where it came in; with `dedup_key` it identifies the delivery for ever.
        event: The sender's name for what happened, e.g. "push".
        dedup_key: The sender's delivery id where it is signed, else a digest of the body.
        ordering_key: Deliveries of one integration with the same key are handled one after
            the other in the order of arrival; None for no order.
        headers: JSON `[[name, value], …]`, as received.
        body: Exactly as received. Deliveries of one call with the same body and headers (the
            events of a batch) share one stored copy.
        payload: JSON of the single event; None where the body is the payload.
        content_type: Of the body.
        received_at: Aware UTC instant.
        dead_letter_reason: Store it dead-lettered for this reason, so that it is seen and can be
            replayed, but not handled; None for the usual way.
        ignore_reason: As `dead_letter_reason`, but stored as ignored: nobody has to look at it.
        beside: A table and a row of it to insert with the delivery if that is new.
    """

    integration: str
    endpoint: str
    event: str
    dedup_key: str
    ordering_key: str | None
    headers: bytes
    body: bytes
    payload: bytes | None
    content_type: str
    received_at: datetime
    dead_letter_reason: str | None = None
    ignore_reason: str | None = None
    beside: tuple[Table, Mapping[str, Any]] | None = None

    @property
    def size_bytes(self) -> int:
        """Of body and payload."""
        return len(self.body) + len(self.payload or b"")

    @property
    def status(self) -> Literal["received", "queued", "dead_letter", "ignored"]:
        """What it is stored as; nobody handles what is dead-lettered or ignored."""
        if self.dead_letter_reason is not None:
            return "dead_letter"
        if self.ignore_reason is not None:
            return "ignored"
        return "received" if self.ordering_key is None else "queued"


class StoredDelivery(NamedTuple):
    """What became of one `NewDelivery`.

    Attributes:
        id: The same for a duplicate as for the first.
        is_new: False for a duplicate, which had no effect.
    """

    id: str
    is_new: bool


def delivery_id(endpoint: str, dedup_key: str) -> str:
    """The id every acceptance of this delivery has, even after the first one was purged."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{len(endpoint)}:{endpoint}{dedup_key}".encode())
    return digest.hexdigest()
