"""Cursors of imports, their open windows, and imported and rejected records."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tasks.core.state.tables import Instant

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "import_cursors",
        sa.Column("stream", sa.String(200), primary_key=True),
        sa.Column("value", sa.Text),
        sa.Column("owner", sa.String(64)),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("lease_until_at", Instant),
        sa.Column("advanced_at", Instant),
        sa.Column("updated_at", Instant, nullable=False),
    )
    op.create_table(
        "import_windows",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("stream", sa.String(200), _stream(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("since_at", Instant),
        sa.Column("until_at", Instant),
        sa.Column("opened_at", Instant, nullable=False),
        sa.Column("position", sa.Text),
        sa.Column("is_read", sa.Boolean, nullable=False),
        sa.Column("newest_at", Instant),
        sa.Column("pages", sa.Integer, nullable=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("known", sa.BigInteger, nullable=False),
        sa.Column("rejected", sa.BigInteger, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        sa.Column("unchanged", sa.BigInteger, nullable=False),
        sa.Column("batch_key", sa.String(80)),
        sa.Column("batch", sa.LargeBinary),
        sa.Column("batch_ids", sa.LargeBinary),
        sa.Column("batch_position", sa.Text),
        sa.UniqueConstraint("stream", "name"),
    )
    op.create_table(
        "import_taken",
        sa.Column("stream", sa.String(200), _stream(), primary_key=True),
        sa.Column("record_id", sa.String(200), primary_key=True),
        sa.Column("digest", sa.String(32), nullable=False),
        sa.Column("changed_at", Instant, nullable=False),
    )
    op.create_index("import_taken_by_change", "import_taken", ["stream", "changed_at"])
    op.create_table(
        "import_rejects",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("stream", sa.String(200), _stream(), nullable=False),
        sa.Column("window_id", sa.String(32), nullable=False),
        sa.Column("record_id", sa.String(200), nullable=False),
        sa.Column("changed_at", Instant),
        sa.Column("field", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("noted_at", Instant, nullable=False),
    )
    op.create_index("import_rejects_of_stream", "import_rejects", ["stream", "noted_at"])


def downgrade() -> None:
    """Drop the tables."""
    for table in ("import_rejects", "import_taken", "import_windows", "import_cursors"):
        op.drop_table(table)


def _stream() -> sa.ForeignKey:
    return sa.ForeignKey("import_cursors.stream", ondelete="CASCADE")
