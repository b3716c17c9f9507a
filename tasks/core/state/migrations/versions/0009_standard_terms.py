"""Renames tables, columns and states to the field's usual terms."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_TABLES = {
    "inbox_drains": "inbox_consumers",
    "synchronous_requests": "awaited_requests",
}
_COLUMNS = {"fence": "lease_token", "claimed_by": "leased_by"}
_STATES = [
    ("inbox_deliveries", "status", "parked", "dead_letter"),
    ("inbox_deliveries", "status", "claimed", "leased"),
    ("imported_files", "state", "claimed", "leased"),
    ("report_deliveries", "state", "claimed", "leased"),
]


def upgrade() -> None:
    """Rename them."""
    for former, name in _TABLES.items():
        op.rename_table(former, name)
    for former, name in _COLUMNS.items():
        op.execute(f"ALTER TABLE inbox_deliveries RENAME COLUMN {former} TO {name}")
    _set_status_length(20)
    for table, column, former, name in _STATES:
        op.execute(f"UPDATE {table} SET {column} = '{name}' WHERE {column} = '{former}'")  # noqa: S608
    _rename_index("synchronous_requests_expiring", "awaited_requests_expiring")


def downgrade() -> None:
    """Restore the former names."""
    _rename_index("awaited_requests_expiring", "synchronous_requests_expiring")
    for table, column, former, name in _STATES:
        op.execute(f"UPDATE {table} SET {column} = '{former}' WHERE {column} = '{name}'")  # noqa: S608
    _set_status_length(10)
    for former, name in _COLUMNS.items():
        op.execute(f"ALTER TABLE inbox_deliveries RENAME COLUMN {name} TO {former}")
    for former, name in _TABLES.items():
        op.rename_table(name, former)


def _set_status_length(length: int) -> None:
    if op.get_bind().dialect.name != "sqlite":  # which holds any length anywhere
        op.alter_column("inbox_deliveries", "status", type_=sa.String(length))


def _rename_index(former: str, name: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        table = "awaited_requests"
        op.drop_index(former, table)
        op.create_index(name, table, ["expires_at"], sqlite_where=sa.text("expires_at IS NOT NULL"))
    else:
        op.execute(f"ALTER INDEX {former} RENAME TO {name}")
