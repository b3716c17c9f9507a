"""First in, first out per ordering key: one delivery of a key is at the head, others queue.

The head is whatever of the key is waiting, leased or to be retried; only a head may be
leased, so a lease needs no look at other rows. Whoever adds a delivery or finishes one lets
the next step forward in the same transaction; on PostgreSQL they take turns for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, select, text, update

from tasks.core.intake.inbox.tables import DELIVERIES

_QUEUED = DELIVERIES.alias("queued")
_HEAD = DELIVERIES.alias("head")
_PROMOTE = (
    update(DELIVERIES)
    .where(
        DELIVERIES.c.seq
        == select(func.min(_QUEUED.c.seq))
        .where(
            _QUEUED.c.integration == bindparam("of_integration"),
            _QUEUED.c.ordering_key == bindparam("of_key"),
            text("queued.status = 'queued'"),
        )
        .scalar_subquery(),
        ~select(1)
        .where(
            _HEAD.c.integration == bindparam("of_integration"),
            _HEAD.c.ordering_key == bindparam("of_key"),
            _HEAD.c.due_at.is_not(None),
        )
        .exists(),
    )
    .values(status="received", due_at=bindparam("from_at"))
)


def take_turns(connection: Connection, integrations: Iterable[str]) -> None:
    """Wait until no other transaction is adding or finishing ordered deliveries of these.

    SQLite has one writer at a time anyhow.
    """
    if connection.dialect.name != "postgresql":
        return
    for integration in sorted(set(integrations)):
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:integration, 4173010))"),
            {"integration": integration},
        )


def promote_heads(connection: Connection, keys: Mapping[tuple[str, str], datetime]) -> None:
    """Let the first queued delivery of each key step forward, unless the key has a head.

    Args:
        connection: In a transaction that has called `take_turns` for these integrations.
        keys: (integration, ordering key) to the instant from which the next may be leased.
    """
    if keys:
        connection.execute(
            _PROMOTE,
            [
                {"of_integration": integration, "of_key": key, "from_at": from_at}
                for (integration, key), from_at in keys.items()
            ],
        )
