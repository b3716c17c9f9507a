"""Whether an activated integration's deployments were switched on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column; what is active was switched on."""
    op.add_column(
        "activations",
        sa.Column("is_switched_on", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.execute("UPDATE activations SET is_switched_on = is_active")


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("activations", "is_switched_on")
