"""The identity map: pairs of records in two systems, by every id they ever had."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tasks.core.state.tables import Instant

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "identity_pairs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("kind", sa.String(100), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("lease_until_at", Instant, nullable=False),
        sa.Column("deleted_at", Instant),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("updated_at", Instant),
    )
    op.create_index("identity_pairs_by_kind", "identity_pairs", ["kind", "id"])
    op.create_table(
        "identity_ids",
        sa.Column("kind", sa.String(100), primary_key=True),
        sa.Column("side", sa.String(5), primary_key=True),
        sa.Column("record_id", sa.String(300), primary_key=True),
        sa.Column(
            "pair_id",
            sa.String(32),
            sa.ForeignKey("identity_pairs.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("is_former", sa.Boolean, nullable=False),
    )
    op.create_index("identity_ids_by_pair", "identity_ids", ["pair_id"])
    op.create_index(
        "identity_ids_current",
        "identity_ids",
        ["pair_id", "side"],
        unique=True,
        sqlite_where=sa.text("NOT is_former"),
        postgresql_where=sa.text("NOT is_former"),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("identity_ids")
    op.drop_table("identity_pairs")
