"""The record of reports delivered: one row a report, period and destination."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tasks.core.state.tables import Instant

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "report_deliveries",
        sa.Column("identity", sa.String(64), primary_key=True),
        sa.Column("report", sa.String(200), nullable=False),
        sa.Column("period", sa.String(60), nullable=False),
        sa.Column("destination", sa.String(500), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("lease_until_at", Instant, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("uncertain", sa.Boolean, nullable=False),
        sa.Column("name", sa.String(500)),
        sa.Column("size", sa.BigInteger),
        sa.Column("sha256", sa.String(64)),
        sa.Column("link", sa.String(2000)),
        sa.Column("reason", sa.Text),
        sa.Column("first_tried_at", Instant, nullable=False),
        sa.Column("updated_at", Instant, nullable=False),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("report_deliveries")
