"""The tables of activated integrations and their registrations."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, String, Table, Text, UniqueConstraint

from tasks.core.state.tables import METADATA, Instant

ACTIVATIONS = Table(
    "activations",
    METADATA,
    Column("integration", String(63), primary_key=True),
    Column("is_active", Boolean, nullable=False),
    # whether its deployments were last switched on
    Column("is_switched_on", Boolean, nullable=False),
    Column("public_url", String(2000), nullable=False),
    # lets only one activation of an integration run at a time
    Column("owner", String(64), nullable=False),
    Column("lease_until_at", Instant, nullable=False),
    Column("changed_at", Instant, nullable=False),
)

REGISTRATIONS = Table(
    "registrations",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("integration", String(63), nullable=False, index=True),
    Column("name", String(63), nullable=False),
    # where it is registered, e.g. the URL of the third party's collection of webhooks
    Column("place", String(1000), nullable=False),
    # the declaration as JSON, variables filled in: enough to remove what is no longer declared
    Column("declaration", Text, nullable=False),
    # the URL to be called, with its variables unfilled
    Column("shown_url", String(2000), nullable=False),
    # JSON list: SHA-256 of every URL that may be registered there, the newest last
    Column("url_digests", Text, nullable=False),
    # intended → registered; an intended one may be there without us knowing its id
    Column("state", String(10), nullable=False),
    Column("remote_id", String(500)),
    # SHA-256 of the secret that we made and sent
    Column("secret_digest", String(64)),
    Column("problem", Text),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    UniqueConstraint("integration", "name", "place"),
)
