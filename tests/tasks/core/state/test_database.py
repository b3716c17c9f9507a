"""The state database: its connections do not wait for ever, and its tables are of our version."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, column, insert, make_url, table, text

from blocks.errors import MisconfiguredError
from tasks.core.state import migrations
from tasks.core.state.database import migrate, open_database
from tasks.core.state.tables import Instant


def test_postgresql_connections_notice_a_server_that_vanished(postgresql_url):
    """The kernel probes a silent connection, and gives up on what nobody acknowledges."""
    engine = open_database(postgresql_url)
    with engine.connect() as connection:
        descriptor = connection.connection.dbapi_connection.pgconn.socket
        with socket.socket(fileno=socket.dup(descriptor)) as same:
            options = {
                name: same.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            }
            is_kept_alive = same.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    engine.dispose()
    assert is_kept_alive
    assert options == {
        "TCP_KEEPIDLE": 10,
        "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 25_000,
    }


def test_what_the_url_says_of_the_network_goes_first(postgresql_url):
    """An operator's own time-outs are kept."""
    url = make_url(postgresql_url).update_query_dict({"tcp_user_timeout": "9000"})
    engine = open_database(url.render_as_string(hide_password=False))
    with engine.connect() as connection:
        descriptor = connection.connection.dbapi_connection.pgconn.socket
        with socket.socket(fileno=socket.dup(descriptor)) as same:
            seen = same.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    engine.dispose()
    assert seen == 9000


def test_older_code_on_a_newer_database_says_to_update(migrated_sqlite, tmp_path):
    """What another machine's newer code has migrated is left alone, and the mending is told."""
    path = shutil.copy(migrated_sqlite, tmp_path / "newer.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(MisconfiguredError, match="update this machine's code") as caught:
        open_database(f"sqlite:///{path}")
    assert "revision 9999" in str(caught.value)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


def test_what_was_stored_under_former_terms_is_rewritten(state_database):
    """Deliveries, files and reports of former versions have the statuses of today; and back."""
    _move_to(state_database, "0008")
    with state_database.begin() as connection:
        _insert(connection, "inbox_deliveries", _DELIVERY | {"id": "a", "status": "parked"})
        _insert(connection, "inbox_deliveries", _DELIVERY | {"id": "b", "status": "claimed"})
        run = {"run_id": "run", "integration": "orders", "lease_until_at": NOON}
        _insert(connection, "inbox_drains", run)
    migrate(state_database)
    query = f"SELECT id, status, lease_token, leased_by FROM inbox_deliveries {_OURS}"
    with state_database.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(query))]
        runs = (
            connection.execute(text("SELECT run_id FROM inbox_consumers WHERE run_id = 'run'"))
            .scalars()
            .all()
        )
    assert rows == [("a", "dead_letter", 3, "run"), ("b", "leased", 3, "run")]
    assert runs == ["run"]
    _move_to(state_database, "0008")
    query = (
        "SELECT status, fence, claimed_by FROM inbox_deliveries WHERE id IN ('a', 'b') ORDER BY id"
    )
    with state_database.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(query))]
    assert rows == [("parked", 3, "run"), ("claimed", 3, "run")]
    migrate(state_database)


_OURS = "WHERE id IN ('a', 'b') ORDER BY id"  # other tests may leave rows
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
_DELIVERY = {
    "integration": "orders",
    "endpoint": "shop",
    "event": "order",
    "dedup_key": "d",
    "request_id": "r",
    "size_bytes": 1,
    "attempts": 1,
    "fence": 3,
    "generation": 0,
    "claimed_by": "run",
    "received_at": NOON,
}


def _insert(connection: Connection, name: str, row: dict[str, Any]) -> None:
    columns = [column(each, Instant if each.endswith("_at") else None) for each in row]
    connection.execute(insert(table(name, *columns)).values(row))


def _move_to(engine: Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
