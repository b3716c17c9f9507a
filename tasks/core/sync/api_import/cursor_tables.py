"""What is remembered of every stream: its cursor, the windows under way, and what was taken."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from tasks.core.state.tables import METADATA, Instant

CURSORS = Table(
    "import_cursors",
    METADATA,
    Column("stream", String(200), primary_key=True),
    Column("value", Text),  # null: nothing was imported yet
    Column("owner", String(64)),
    Column("token", Integer, nullable=False),
    Column("lease_until_at", Instant),  # null: nobody is at it
    Column("advanced_at", Instant),
    Column("updated_at", Instant, nullable=False),
)

WINDOWS = Table(
    "import_windows",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("stream", String(200), ForeignKey(CURSORS.c.stream, ondelete="CASCADE"), nullable=False),
    Column("name", String(100), nullable=False),  # "" for what is new, else a backfill's range
    Column("since_at", Instant),
    Column("until_at", Instant),
    Column("opened_at", Instant, nullable=False),
    Column("position", Text),  # of the next page, as JSON; null: the first
    Column("is_read", Boolean, nullable=False),  # there is no next page
    Column("newest_at", Instant),
    Column("pages", Integer, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("known", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("unchanged", BigInteger, nullable=False),
    # the batch in hand: what was taken from the last page and has perhaps not arrived yet
    Column("batch_key", String(80)),
    Column("batch", LargeBinary),
    Column("batch_ids", LargeBinary),
    Column("batch_position", Text),
    UniqueConstraint("stream", "name"),
)

TAKEN = Table(
    "import_taken",
    METADATA,
    Column(
        "stream", String(200), ForeignKey(CURSORS.c.stream, ondelete="CASCADE"), primary_key=True
    ),
    Column("record_id", String(200), primary_key=True),
    Column("digest", String(32), nullable=False),
    Column("changed_at", Instant, nullable=False),
    Index("import_taken_by_change", "stream", "changed_at"),
)

REJECTS = Table(
    "import_rejects",
    METADATA,
    Column(
        "id",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    Column("stream", String(200), ForeignKey(CURSORS.c.stream, ondelete="CASCADE"), nullable=False),
    Column("window_id", String(32), nullable=False),
    Column("record_id", String(200), nullable=False),
    Column("changed_at", Instant),
    Column("field", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("noted_at", Instant, nullable=False),
    Index("import_rejects_of_stream", "stream", "noted_at"),
)
