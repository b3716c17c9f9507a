"""What is remembered of every file that was found, and of the batches sent from it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String, Table, Text

from tasks.core.state.tables import METADATA, Instant

FILES = Table(
    "imported_files",
    METADATA,
    Column("id", String(32), primary_key=True),
    # SHA-256 of importer, place, path and version: those are too long for an index together
    Column("identity", String(64), nullable=False, unique=True),
    Column("importer", String(200), nullable=False),
    Column("place", String(500), nullable=False),
    Column("path", String(2000), nullable=False),
    Column("version", String(200), nullable=False),
    Column("size", BigInteger, nullable=False),
    # leased → imported → settled, or leased → failing → failed, or leased → released
    Column("state", String(10), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("token", Integer, nullable=False),
    Column("lease_until_at", Instant, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("batch_size", Integer, nullable=False),
    Column("rows_imported", BigInteger, nullable=False),
    Column("rows_rejected", BigInteger, nullable=False),
    Column("target_path", String(2000)),
    Column("reason", Text),
    Column("first_seen_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Index("imported_files_by_owner", "owner", "state"),
)

BATCHES = Table(
    "imported_batches",
    METADATA,
    Column(
        "file_id",
        String(32),
        ForeignKey("imported_files.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("ordinal", Integer, primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("records", Integer, nullable=False),
)
