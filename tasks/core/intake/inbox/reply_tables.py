"""The table of requests whose callers want an answer; each is one delivery of the inbox."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, LargeBinary, String, Table, Text, text

from tasks.core.state.tables import METADATA, Instant

REMEMBERED_S = 86_400  # how long an expired request is told from one that never was

AWAITED_REQUESTS = Table(
    "awaited_requests",
    METADATA,
    # cannot be guessed: whoever knows it may read the result
    Column("id", String(32), primary_key=True),
    Column("delivery_id", String(32), nullable=False, unique=True),
    Column("endpoint", Text, nullable=False),
    # of what was asked: the same idempotency key with another one is a mistake
    Column("digest", String(64), nullable=False),
    Column("keep_s", Integer, nullable=False),
    Column("received_at", Instant, nullable=False),
    # a second caller waits for the same request, so that one of them may leave
    Column("is_shared", Boolean, nullable=False),
    # JSON of where the result goes if its caller has hung up; NULL if nowhere
    Column("callback", Text),
    Column("callback_wanted", Boolean, nullable=False),
    Column("cancel_requested_at", Instant),
    # JSON
    Column("progress", Text),
    # "done", "failed" or "cancelled", once it has ended
    Column("state", String(10)),
    Column("ended_at", Instant),
    Column("expires_at", Instant),
    Column("status", Integer),
    # JSON `[[name, value], …]`
    Column("headers", Text),
    Column("body", LargeBinary),
    Index(
        "synchronous_requests_expiring",
        "expires_at",
        sqlite_where=text("expires_at IS NOT NULL"),
        postgresql_where=text("expires_at IS NOT NULL"),
    ),
)
