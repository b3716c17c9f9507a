"""What is remembered of every pair of records, and of the ids that each side gave them."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, text

from tasks.core.state.tables import METADATA, Instant

PAIRS = Table(
    "identity_pairs",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("kind", String(100), nullable=False),
    # JSON, in the words of the integration
    Column("state", Text, nullable=False),
    # grows with each hold; whoever has an older one has lost the pair
    Column("token", Integer, nullable=False),
    Column("lease_until_at", Instant, nullable=False),
    Column("deleted_at", Instant),
    Column("created_at", Instant, nullable=False),
    # NULL as long as nothing was kept
    Column("updated_at", Instant),
    Index("identity_pairs_by_kind", "kind", "id"),
)

IDS = Table(
    "identity_ids",
    METADATA,
    # the key is what makes two pairs of one record impossible
    Column("kind", String(100), primary_key=True),
    Column("side", String(5), primary_key=True),
    Column("record_id", String(300), primary_key=True),
    Column(
        "pair_id",
        String(32),
        ForeignKey("identity_pairs.id", ondelete="CASCADE"),
        nullable=False,
    ),
    # the record had this id once: it was merged into another, or made anew
    Column("is_former", Boolean, nullable=False),
    Index("identity_ids_by_pair", "pair_id"),
    Index(
        "identity_ids_current",
        "pair_id",
        "side",
        unique=True,
        sqlite_where=text("NOT is_former"),
        postgresql_where=text("NOT is_former"),
    ),
)
