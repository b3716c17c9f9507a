"""What SQL Server's driver does over the real wire, against a stand-in without T-SQL."""

from __future__ import annotations

import pytest

from blocks.errors import MisconfiguredError, UpstreamBusyError, UpstreamRejectedError
from blocks.sql_database import SqlDatabase
from sandbox.systems import tds_server
from tasks.core.connectors.sql.report_table import ReportTable
from tasks.core.connectors.sql.row_queue import RowQueue, RowQueueSettings

# python-tds leaves a socket that was refused to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def server():
    """A server with a table of three rows that wait."""
    with tds_server.start() as sandbox:
        sandbox.database.executescript(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT, status TEXT);"
            "INSERT INTO orders (name) VALUES ('Größe'), (NULL), ('c');"
        )
        yield sandbox


def connect(server, password="sandbox"):
    return SqlDatabase(
        kind="mssql",
        host="127.0.0.1",
        port=server.port,
        database="sandbox",
        username="sa",
        password=password,
        tls=False,
        connect_timeout_s=2,
    )


@pytest.fixture
def queue(server):
    settings = RowQueueSettings(table="orders", key="id", columns=["name"], status_column="status")
    return RowQueue(connect(server).get_client(), settings, system="mssql://sandbox")


def test_rows_are_leased_with_hints_and_marked(server, queue):
    """The claim carries the locking hints, and the marks are committed."""
    with queue.lock(2) as locked:
        assert [row["name"] for row in locked.rows] == ["Größe", None]
    assert any("TOP" in s and "WITH (UPDLOCK, READPAST, ROWLOCK)" in s for s in server.statements)
    marks = server.database.execute("SELECT status FROM orders ORDER BY id").fetchall()
    assert marks == [("done",), ("done",), (None,)]


def test_a_failed_import_is_rolled_back(server, queue):
    """What was not committed is not there."""
    with pytest.raises(ZeroDivisionError), queue.lock(2) as locked:
        locked.fail(locked.rows[0], str(1 / 0))
    assert queue.waiting() == 3


@pytest.mark.parametrize(
    ("number", "kind"),
    [(1205, UpstreamBusyError), (1222, UpstreamBusyError), (208, MisconfiguredError)],
)
def test_errors_are_told_apart_by_their_numbers(server, queue, number, kind):
    """A deadlock or a lock time-out is tried again, a missing table is not."""
    queue.waiting()
    server.fail_next.append((number, "told by the server"))
    with pytest.raises(kind, match=str(number)):
        queue.waiting()


def test_a_wrong_password_is_ours_to_mend(server):
    """A refused login is no server that is out of reach."""
    settings = RowQueueSettings(table="orders", key="id", columns=["name"], status_column="status")
    engine = connect(server, password="wrong").get_client()
    with pytest.raises(MisconfiguredError):
        RowQueue(engine, settings, system="mssql://sandbox").waiting()


def test_a_report_travels_with_its_values(server):
    """Texts, numbers and bytes arrive as they are; a violated constraint is a refusal."""
    report = ReportTable(
        connect(server).get_client(), "orders", ["id", "name"], system="mssql://sandbox"
    )
    assert report.replace([{"id": 8, "name": "Grüße"}, {"id": 9, "name": None}]) == 2
    found = server.database.execute("SELECT id, name FROM orders ORDER BY id").fetchall()
    assert found == [(8, "Grüße"), (9, None)]
    with pytest.raises(UpstreamRejectedError):
        report.replace([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}])
