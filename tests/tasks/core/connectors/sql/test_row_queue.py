"""Rows of a table as work: taken once, marked or deleted, free again after any failure."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError
from sqlalchemy.dialects import mssql

from blocks.errors import MisconfiguredError, UnreachableError
from blocks.sql_database import SqlDatabase
from tasks.core.connectors.sql.row_queue import RowQueue, RowQueueSettings

COLUMNS = "id INTEGER PRIMARY KEY, name VARCHAR(50), status VARCHAR(10), reason VARCHAR(500)"


@pytest.fixture
def queue(shop):
    """Makes a queue over a table with so many rows that wait."""

    def queue(rows=10, **settings):
        shop.create(COLUMNS)
        shop.run(
            "INSERT INTO {table} (id, name) VALUES (:id, :name)",
            [{"id": n, "name": f"row {n}"} for n in range(rows)],
        )
        fields = {"status_column": "status", "reason_column": "reason", **settings}
        return RowQueue(
            shop.engine,
            RowQueueSettings(table=shop.table, key="id", columns=["name"], **fields),
            system=shop.system,
        )

    return queue


def test_rows_are_marked_when_the_work_ends_well(shop, queue):
    """Done rows are marked, a bad one with its reason, and none of them is taken again."""
    taken = queue()
    with taken.lock(4) as locked:
        assert [row["name"] for row in locked.rows] == ["row 0", "row 1", "row 2", "row 3"]
        locked.fail(locked.rows[1], "no such item")
    assert shop.rows("status, reason")[:5] == [
        ("done", None),
        ("failed", "no such item"),
        ("done", None),
        ("done", None),
        (None, None),
    ]
    assert taken.waiting() == 6


def test_rows_are_free_again_when_the_work_fails(shop, queue):
    """After an error the rows are as they were, and the next claim gets them again."""
    taken = queue(3)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), taken.lock(10) as locked:
            locked.fail(locked.rows[0], str(1 / 0))
    assert [row["id"] for row in locked.rows] == [0, 1, 2]
    assert taken.waiting() == 3


def test_rows_can_be_deleted_when_done(shop, queue):
    """A table that has no column for marks is emptied instead, and cannot mark a bad row."""
    taken = queue(5, after="delete", status_column=None, reason_column=None)
    with taken.lock(3) as locked, pytest.raises(MisconfiguredError, match="status_column"):
        locked.fail(locked.rows[0], "bad")
    assert [id_ for (id_,) in shop.rows("id")] == [3, 4]


def test_two_takers_never_get_the_same_row(shop, queue):
    """Eight takers at once share out all rows, and none waits for another's rows."""
    taken = queue(200)
    together = threading.Barrier(8)

    def take(_):
        together.wait()
        mine = []
        while True:
            with taken.lock(10) as locked:
                mine += [row["id"] for row in locked.rows]
            if not locked.rows:
                return mine

    with ThreadPoolExecutor(8) as pool:
        shares = list(pool.map(take, range(8)))
    assert sorted(id_ for share in shares for id_ in share) == list(range(200))
    assert shop.rows("DISTINCT status", order="1") == [("done",)]


@pytest.mark.parametrize("shop", ["postgresql", "mariadb"], indirect=True)
def test_held_rows_are_passed_over(shop, queue):
    """While one taker works on the first rows, another gets the next; SQLite takes turns."""
    taken = queue(4)
    with taken.lock(2) as first, taken.lock(10) as second:
        assert [row["id"] for row in first.rows] == [0, 1]
        assert [row["id"] for row in second.rows] == [2, 3]


def test_sql_server_gets_hints_where_its_dialect_drops_skip_locked(shop, queue):
    """The statement for SQL Server locks rows and passes over locked ones by table hints."""
    statement = str(queue().lock_statement(5).compile(dialect=mssql.dialect()))
    assert "WITH (UPDLOCK, READPAST, ROWLOCK)" in statement
    assert "SKIP LOCKED" not in statement


def test_a_missing_table_is_ours_to_mend(shop):
    """A wrong name is no reason to try again."""
    settings = RowQueueSettings(table="no_such", key="id", columns=["id"], status_column="s")
    with (
        pytest.raises(MisconfiguredError),
        RowQueue(shop.engine, settings, system=shop.system).lock(1),
    ):
        pass


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "mssql"])
def test_a_server_that_does_not_answer_is_out_of_reach(kind):
    """No connection is a reason to try again, with whatever driver; its password is not told."""
    block = SqlDatabase(
        kind=kind, host="127.0.0.1", port=9, database="x", username="u", password="s3cret",
        tls=False, connect_timeout_s=2,
    )  # fmt: skip
    settings = RowQueueSettings(table="t", key="id", columns=["id"], status_column="s")
    with (
        pytest.raises(UnreachableError) as caught,
        RowQueue(block.get_client(), settings, system=block.system).lock(1),
    ):
        pass
    assert "s3cret" not in str(caught.value)


def test_settings_that_would_take_rows_for_ever_are_refused():
    """A mark that leaves rows as they are, or none at all, is a mistake."""
    with pytest.raises(ValidationError, match="status_column"):
        RowQueueSettings(table="t", key="id", columns=["a"])
    with pytest.raises(ValidationError, match="must differ"):
        RowQueueSettings(table="t", key="id", columns=["a"], status_column="s", ready="done")
