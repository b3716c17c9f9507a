"""Activated integrations, what they have registered, and the secrets agreed on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tasks.core.state.tables import Instant

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "stored_secrets",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("ciphertext", sa.Text, nullable=False),
        sa.Column("stored_at", Instant, nullable=False),
    )
    op.create_table(
        "activations",
        sa.Column("integration", sa.String(63), primary_key=True),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("public_url", sa.String(2000), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("lease_until_at", Instant, nullable=False),
        sa.Column("changed_at", Instant, nullable=False),
    )
    op.create_table(
        "registrations",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("integration", sa.String(63), nullable=False, index=True),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("place", sa.String(1000), nullable=False),
        sa.Column("declaration", sa.Text, nullable=False),
        sa.Column("shown_url", sa.String(2000), nullable=False),
        sa.Column("url_digests", sa.Text, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("remote_id", sa.String(500)),
        sa.Column("secret_digest", sa.String(64)),
        sa.Column("problem", sa.Text),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("updated_at", Instant, nullable=False),
        sa.UniqueConstraint("integration", "name", "place"),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("registrations", "activations", "stored_secrets"):
        op.drop_table(table)
