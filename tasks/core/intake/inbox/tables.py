"""The inbox's tables: small delivery rows that change, large rows that never do.

A request is what one HTTP request brought; its events are its deliveries. Only deliveries are
updated, so claiming a delivery never rewrites a body.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    text,
)

from tasks.core.state.tables import METADATA, Instant

REQUESTS = Table(
    "inbox_requests",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("headers", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("received_at", Instant, nullable=False),
)

# Only for deliveries whose event is not the whole body: batches, SOAP, e-mail.
PAYLOADS = Table(
    "inbox_payloads",
    METADATA,
    Column("delivery_id", String(32), primary_key=True),
    Column("payload", LargeBinary, nullable=False),
)

DELIVERIES = Table(
    "inbox_deliveries",
    METADATA,
    Column(
        "seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    # digest of endpoint and dedup key: its uniqueness is what "accepted once" rests on
    Column("id", String(32), nullable=False, unique=True),
    Column("integration", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("dedup_key", Text, nullable=False),
    Column("ordering_key", Text),
    Column("request_id", String(32), nullable=False, index=True),
    Column("size_bytes", Integer, nullable=False),
    Column("status", String(20), nullable=False),
    # when it may be leased: at once, at retry time, when its lease has run out; else NULL
    Column("due_at", Instant),
    Column("attempts", Integer, nullable=False),
    # grows with each lease: what its owner must show to say how it went
    Column("lease_token", Integer, nullable=False),
    # grows when a replay shall have its effects once more
    Column("generation", Integer, nullable=False),
    Column("leased_by", Text),
    Column("reason", Text),
    Column("received_at", Instant, nullable=False),
    Column("settled_at", Instant),
    Index(
        "inbox_deliveries_due",
        "integration",
        "due_at",
        "seq",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    # one delivery of each ordering key is at the head; the others are queued behind it
    Index(
        "inbox_deliveries_head",
        "integration",
        "ordering_key",
        unique=True,
        sqlite_where=text("ordering_key IS NOT NULL AND due_at IS NOT NULL"),
        postgresql_where=text("ordering_key IS NOT NULL AND due_at IS NOT NULL"),
    ),
    Index(
        "inbox_deliveries_queued",
        "integration",
        "ordering_key",
        "seq",
        sqlite_where=text("status = 'queued'"),
        postgresql_where=text("status = 'queued'"),
    ),
    Index(
        "inbox_deliveries_of_run",
        "leased_by",
        sqlite_where=text("leased_by IS NOT NULL"),
        postgresql_where=text("leased_by IS NOT NULL"),
    ),
    Index(
        "inbox_deliveries_settled",
        "settled_at",
        sqlite_where=text("settled_at IS NOT NULL"),
        postgresql_where=text("settled_at IS NOT NULL"),
    ),
)

# Which consumer runs are at work, so that nobody needs to start another.
CONSUMERS = Table(
    "inbox_consumers",
    METADATA,
    Column("run_id", String(64), primary_key=True),
    Column("integration", Text, nullable=False),
    Column("lease_until_at", Instant, nullable=False),
)
