"""The table of encrypted secrets and their versions."""

from __future__ import annotations

from sqlalchemy import Column, Integer, String, Table, Text

from tasks.core.state.tables import METADATA, Instant

SECRETS = Table(
    "stored_secrets",
    METADATA,
    Column("name", String(200), primary_key=True),
    # from 1; a greater one is newer, and the previous one is still accepted
    Column("version", Integer, primary_key=True, autoincrement=False),
    # Fernet token of a JSON document with name and value, so that they cannot be swapped
    Column("ciphertext", Text, nullable=False),
    Column("stored_at", Instant, nullable=False),
)
