"""Requests whose callers wait for a reply: the request, its state and the reply."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tasks.core.state.tables import Instant

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "synchronous_requests",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("delivery_id", sa.String(32), nullable=False, unique=True),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("keep_s", sa.Integer, nullable=False),
        sa.Column("received_at", Instant, nullable=False),
        sa.Column("is_shared", sa.Boolean, nullable=False),
        sa.Column("callback", sa.Text),
        sa.Column("callback_wanted", sa.Boolean, nullable=False),
        sa.Column("cancel_requested_at", Instant),
        sa.Column("progress", sa.Text),
        sa.Column("state", sa.String(10)),
        sa.Column("ended_at", Instant),
        sa.Column("expires_at", Instant),
        sa.Column("status", sa.Integer),
        sa.Column("headers", sa.Text),
        sa.Column("body", sa.LargeBinary),
    )
    op.create_index(
        "synchronous_requests_expiring",
        "synchronous_requests",
        ["expires_at"],
        sqlite_where=sa.text("expires_at IS NOT NULL"),
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("synchronous_requests")
