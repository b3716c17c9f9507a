"""What is remembered of every report that went, or should go, to a destination."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Integer, String, Table, Text

from tasks.core.state.tables import METADATA, Instant

REPORT_DELIVERIES = Table(
    "report_deliveries",
    METADATA,
    # SHA-256 of report, period and destination: those are too long for an index together
    Column("identity", String(64), primary_key=True),
    Column("report", String(200), nullable=False),
    Column("period", String(60), nullable=False),
    Column("destination", String(500), nullable=False),
    # leased → delivered, or leased → released
    Column("state", String(10), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("owner", String(64), nullable=False),
    Column("token", Integer, nullable=False),
    Column("lease_until_at", Instant, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("uncertain", Boolean, nullable=False),
    Column("name", String(500)),
    Column("size", BigInteger),
    Column("sha256", String(64)),
    Column("link", String(2000)),
    Column("reason", Text),
    Column("first_tried_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
)
