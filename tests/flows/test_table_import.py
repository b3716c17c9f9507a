"""The scheduled import of tables as a whole: a database, a Prefect server and the application."""

from __future__ import annotations

import json
import re
import uuid

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from blocks.http_api import ApiKeyAuth, HttpApi
from blocks.sql_database import SqlDatabase
from flows.table_import.flow import table_import
from tasks.core.sync.api_import.cursors import Cursors

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SERVERS = {
    "postgresql": {"host": "127.0.0.1", "database": "postgres", "username": "postgres"},
    "mariadb": {"host": "127.0.0.1", "database": "test", "username": "root"},
}
COLUMNS = {"item_no": "sku", "descr": "name", "on_hand": "quantity"}


class Erp:
    """Another system's table."""

    def __init__(self, block: SqlDatabase) -> None:
        self.engine = block.get_client()
        self.table = f"test_{uuid.uuid4().hex[:12]}"

    def run(self, statement, rows=None):
        with self.engine.begin() as connection:
            connection.execute(text(statement.format(table=self.table)), rows)

    def rows(self, columns):
        with self.engine.connect() as connection:
            found = connection.execute(text(f"SELECT {columns} FROM {self.table} ORDER BY id"))
            return [tuple(row) for row in found]

    def put(self, *rows):
        self.run(
            "INSERT INTO {table} (id, item_no, descr, on_hand, version)"
            " VALUES (:n, :i, 'x', :q, :n)",
            [{"n": n, "i": item, "q": quantity} for n, (item, quantity) in enumerate(rows, 1)],
        )


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def erp(request, tmp_path, runs, inbox, own_app):
    """A table on each kind of database; it and the application are known to Prefect as blocks."""
    fields = SERVERS.get(request.param, {"database": str(tmp_path / "erp.db")})
    block = SqlDatabase(kind=request.param, tls=False, connect_timeout_s=3, **fields)
    erp = Erp(block)
    try:
        erp.run(
            "CREATE TABLE {table} (id INTEGER PRIMARY KEY, item_no VARCHAR(20), descr VARCHAR(50),"
            " on_hand INTEGER, version INTEGER, status VARCHAR(10), reason VARCHAR(500))"
        )
    except OperationalError as exc:
        pytest.skip(f"no {request.param} on this machine ({exc.orig})")
    block.save("erp", overwrite=True)
    HttpApi(
        base_url=f"{own_app.base_url}/api/v1",
        auth=ApiKeyAuth(key=own_app.api_key),
        max_attempts=1,
    ).save("own-app", overwrite=True)
    yield erp
    erp.run("DROP TABLE {table}")
    erp.engine.dispose()


def parameters(erp, take, **more):
    rows = {"take": take, "table": erp.table, "key": "id", "columns": list(COLUMNS)}
    if take == "waiting":
        rows |= {"status_column": "status", "reason_column": "reason"}
    else:
        rows |= {"version": "version"}
    shared = {"name": "erp-stock", "database": "sql-database/erp", "record_type": "inventory"}
    return {**shared, "rows": rows, "columns": COLUMNS, "retry_delay_s": 0, **more}


def stock(own_app):
    return {record["sku"]: record["quantity"] for record in own_app.records("inventory")}


def test_rows_that_wait_are_imported_and_marked(erp, runs, own_app):
    """Good rows are in and marked; the bad one is marked, shown and named; nothing is left."""
    erp.put(("A", 1), ("B", -2), ("C", 3))
    state = runs.start(table_import, **parameters(erp, "waiting", name="ERP_stock"))
    assert state.is_failed()
    assert state.message.startswith("2 rows imported, 1 bad: row 2: on_hand: ")
    assert stock(own_app) == {"A": 1, "C": 3}
    assert [status for (status,) in erp.rows("status")] == ["done", "failed", "done"]
    assert runs.tasks() == {"import rows of ERP_stock": "Failed"}
    [rejects] = runs.artifacts()
    assert rejects.key == "erp-stock-rejects"  # whatever letters the name has
    assert [(r["Entry"], r["Column"]) for r in json.loads(rejects.data)] == [("2", "on_hand")]
    state = runs.start(table_import, **parameters(erp, "waiting"))
    assert (state.is_completed(), state.message) == (True, "0 rows imported")


def test_rows_that_changed_are_imported_behind_a_stored_cursor(erp, runs, inbox, own_app):
    """Each run takes what changed since the last; its cursor can be seen."""
    erp.put(("A", 1), ("B", 2))
    changed = parameters(erp, "changed")
    assert runs.start(table_import, **changed).message == "2 rows imported"
    assert runs.start(table_import, **changed).message == "0 rows imported"
    erp.run("UPDATE {table} SET on_hand = 7, version = 3 WHERE item_no = 'A'")
    assert runs.start(table_import, **changed).message == "1 row imported"
    assert stock(own_app) == {"A": 7, "B": 2}
    [stream] = Cursors(inbox.engine).streams()
    assert (stream.stream, stream.value, stream.owner) == ("erp-stock", "int:3|int:1", None)


@pytest.mark.parametrize("erp", ["sqlite"], indirect=True)
def test_an_application_that_fails_leaves_the_rows_for_a_retry(erp, runs, own_app):
    """The run says what is away; Retry imports the rest, once."""
    erp.put(("A", 1), ("B", 2), ("C", 3))
    own_app.behave("error", status=503, remaining=1)
    state = runs.start(table_import, **parameters(erp, "waiting", batch_size=2, retries=0))
    assert state.is_failed()
    assert "503" in state.message
    assert [status for (status,) in erp.rows("status")] == [None, None, None]
    assert runs.retry(table_import).message == "3 rows imported"
    assert stock(own_app) == {"A": 1, "B": 2, "C": 3}


@pytest.mark.parametrize("erp", ["sqlite"], indirect=True)
def test_a_short_failure_is_retried_within_the_run(erp, runs, own_app):
    """One failing answer costs one more attempt of the task and nothing else."""
    erp.put(("A", 1))
    own_app.behave("error", status=503, remaining=1)
    assert runs.start(table_import, **parameters(erp, "waiting")).is_completed()
    assert stock(own_app) == {"A": 1}


@pytest.mark.parametrize("erp", ["sqlite"], indirect=True)
def test_two_runs_are_never_at_the_same_cursor(erp, runs, inbox, own_app):
    """A run that finds another at it ends well and leaves the rows to that one."""
    erp.put(("A", 1))
    Cursors(inbox.engine).lease("erp-stock", owner="another")
    state = runs.start(table_import, **parameters(erp, "changed"))
    assert state.is_completed()
    assert re.fullmatch(
        r"nothing to do: run another is at it, until \d\d:\d\d:\d\d UTC at the latest",
        state.message,
    )
    assert stock(own_app) == {}
