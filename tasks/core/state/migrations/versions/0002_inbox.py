"""The inbox: requests as received, their deliveries, and the active consumer runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tasks.core.state.tables import Instant

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "inbox_requests",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("headers", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("received_at", Instant, nullable=False),
    )
    op.create_table(
        "inbox_payloads",
        sa.Column("delivery_id", sa.String(32), primary_key=True),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "inbox_deliveries",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("integration", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("dedup_key", sa.Text, nullable=False),
        sa.Column("ordering_key", sa.Text),
        sa.Column("request_id", sa.String(32), nullable=False, index=True),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("due_at", Instant),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("claimed_by", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("received_at", Instant, nullable=False),
        sa.Column("settled_at", Instant),
    )
    _partial_index("due", ["integration", "due_at", "seq"], "due_at IS NOT NULL")
    _partial_index(
        "head",
        ["integration", "ordering_key"],
        "ordering_key IS NOT NULL AND due_at IS NOT NULL",
        unique=True,
    )
    _partial_index("queued", ["integration", "ordering_key", "seq"], "status = 'queued'")
    _partial_index("of_run", ["claimed_by"], "claimed_by IS NOT NULL")
    _partial_index("settled", ["settled_at"], "settled_at IS NOT NULL")
    op.create_table(
        "inbox_drains",
        sa.Column("run_id", sa.String(64), primary_key=True),
        sa.Column("integration", sa.Text, nullable=False),
        sa.Column("lease_until_at", Instant, nullable=False),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("inbox_drains", "inbox_deliveries", "inbox_payloads", "inbox_requests"):
        op.drop_table(table)


def _partial_index(name: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    op.create_index(
        f"inbox_deliveries_{name}",
        "inbox_deliveries",
        columns,
        unique=unique,
        sqlite_where=sa.text(where),
        postgresql_where=sa.text(where),
    )
