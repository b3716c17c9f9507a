"""The state database: its connections do not wait for ever, and its tables are of our version."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import make_url

from blocks.errors import MisconfiguredError
from tasks.core.state.database import open_database


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
