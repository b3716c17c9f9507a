"""Rows get into the application, and are marked, deleted or behind the cursor only then."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
from pydantic import BaseModel, Field

from blocks.errors import LeaseLostError, MisconfiguredError, UnreachableError
from tasks.core.connectors.sql.changed_rows import ChangedRows, ChangedRowsSettings
from tasks.core.connectors.sql.row_queue import RowQueue, RowQueueSettings
from tasks.core.state.database import open_database
from tasks.core.sync.api_import.cursors import Cursors
from tasks.core.sync.batches.sink import Sent
from tasks.core.sync.record_import.importing import RecordImporter
from tasks.core.sync.record_import.table_rows import (
    FileColumn,
    import_changed_rows,
    import_waiting_rows,
)


class Item(BaseModel):
    sku: str
    quantity: int = Field(ge=0)


class Shelf:
    """An application in memory."""

    def __init__(self) -> None:
        self.stock: dict[str, int] = {}
        self.fails_at: int | None = None
        self.calls = 0

    def send(self, records, *, count, idempotency_key):
        self.calls += 1
        if self.calls == self.fails_at:
            raise UnreachableError("away", system="shelf", operation="send")
        self.stock |= {each["sku"]: each["quantity"] for each in json.loads(records)}
        return Sent(created=count)


@pytest.fixture
def shelf():
    return Shelf()


@pytest.fixture
def cursors(migrated_sqlite, tmp_path):
    import shutil

    shutil.copy(migrated_sqlite, tmp_path / "state.db")
    engine = open_database(f"sqlite:///{tmp_path / 'state.db'}")
    yield Cursors(engine)
    engine.dispose()


def importer(shelf, **options):
    return RecordImporter(shelf, Item, system="test", **options)


def fill(shop, rows, columns="sku, quantity"):
    marks = ", ".join(f":{name.strip()}" for name in columns.split(","))
    names = [name.strip() for name in columns.split(",")]
    shop.run(
        f"INSERT INTO {{table}} (id, {columns}) VALUES (:id, {marks})",
        [{"id": n, **dict(zip(names, row, strict=True))} for n, row in enumerate(rows, 1)],
    )


def waiting(shop, **settings):
    fields = {"columns": ["sku", "quantity"], "status_column": "status", "reason_column": "reason"}
    return RowQueue(
        shop.engine,
        RowQueueSettings(table=shop.table, key="id", **{**fields, **settings}),
        system=shop.system,
    )


STOCK = (
    "id INTEGER PRIMARY KEY, sku VARCHAR(20), quantity INTEGER, version INTEGER, "
    "status VARCHAR(10), reason VARCHAR(500)"
)


def test_waiting_rows_are_marked_behind_the_application(shop, shelf):
    """Good rows are imported and marked in batches, a bad one is marked with its reason."""
    shop.create(STOCK)
    fill(shop, [("a", 1), ("b", -2), ("c", 3), ("d", 4), ("e", 5)])
    imported = import_waiting_rows(waiting(shop), importer(shelf), key="id", rows_at_once=2)
    assert shelf.stock == {"a": 1, "c": 3, "d": 4, "e": 5}
    assert (imported.imported, imported.bad, imported.is_all) == (4, 1, True)
    assert [status for (status,) in shop.rows("status")] == ["done", "failed", *["done"] * 3]
    [(reason,)] = [row for row in shop.rows("reason") if row[0]]
    assert reason.startswith("quantity: ")


def test_an_application_that_goes_away_leaves_its_batch_waiting(shop, shelf):
    """What went in stays marked; the rest waits, and the next run takes exactly that."""
    shop.create(STOCK)
    fill(shop, [(name, 1) for name in "abcdef"])
    shelf.fails_at = 2
    with pytest.raises(UnreachableError):
        import_waiting_rows(waiting(shop), importer(shelf), key="id", rows_at_once=2)
    assert [status for (status,) in shop.rows("status")] == ["done", "done", None, None, None, None]
    import_waiting_rows(waiting(shop), importer(shelf), key="id", rows_at_once=2)
    assert set(shelf.stock) == set("abcdef")
    assert shelf.calls == 4


def test_a_table_without_marks_is_emptied_and_stops_at_a_bad_row(shop, shelf):
    """Rows done are deleted; a bad one has nowhere to be marked and so stays, with an error."""
    shop.create(STOCK)
    fill(shop, [("a", 1), ("b", 2), ("c", -3)])
    queue = waiting(shop, after="delete", status_column=None, reason_column=None)
    with pytest.raises(MisconfiguredError, match="status_column"):
        import_waiting_rows(queue, importer(shelf), key="id", rows_at_once=1)
    assert [sku for (sku,) in shop.rows("sku")] == ["c"]


def test_a_limit_ends_a_run(shop, shelf):
    """Not more rows than allowed are taken, and what is left is said."""
    shop.create(STOCK)
    fill(shop, [(name, 1) for name in "abcde"])
    imported = import_waiting_rows(
        waiting(shop), importer(shelf), key="id", rows_at_once=2, max_rows=3
    )
    assert (imported.imported, imported.is_all) == (3, False)


def test_files_in_a_binary_column_go_through_the_readers(shop, shelf):
    """Each row's file is read; one with a bad line is marked failed and says what went in."""
    shop.create(
        "id INTEGER PRIMARY KEY, name VARCHAR(50), content {binary}, status VARCHAR(10), "
        "reason VARCHAR(500)"
    )
    fill(
        shop,
        [
            ("a.csv", "sku;quantity\nGröße;1\nb;2\n".encode("cp1252")),
            ("b.csv", b"sku;quantity\nc;3\nd;x\n"),
        ],
        columns="name, content",
    )
    from tasks.core.formats.records.formats import CsvFormat

    file = FileColumn(column="content", name_column="name")
    reads = importer(
        shelf,
        holds_files=True,
        file_format=CsvFormat(delimiter=";", encoding="windows-1252"),
    )
    queue = waiting(shop, columns=["name", "content"])
    imported = import_waiting_rows(queue, reads, key="id", file=file)
    assert shelf.stock == {"Größe": 1, "b": 2, "c": 3}
    assert (imported.imported, imported.counts.records, imported.bad) == (1, 3, 1)
    [(_, _), (status, reason)] = shop.rows("status, reason")
    assert (status, reason.partition(":")[0]) == ("failed", "1 records imported, 1 not")


def test_a_file_column_that_is_not_read_is_ours_to_mend(shop, shelf):
    """The name of the forgotten column is told."""
    shop.create(STOCK)
    fill(shop, [("a", 1)])
    with pytest.raises(MisconfiguredError, match="'content' is not among those"):
        import_waiting_rows(
            waiting(shop), importer(shelf), key="id", file=FileColumn(column="content")
        )


@pytest.fixture
def changed(shop, shelf, cursors):
    """Imports what changed, as one run does."""

    def run(owner="run", overlap=0, **options):
        settings = ChangedRowsSettings(
            table=shop.table,
            columns=["sku", "quantity"],
            version="version",
            key="id",
            overlap=overlap,
        )
        lease = cursors.lease("stock", owner=owner)
        try:
            return import_changed_rows(
                ChangedRows(shop.engine, settings, system=shop.system),
                importer(shelf),
                cursors,
                lease,
                version="version",
                key="id",
                **{"rows_at_once": 2, **options},
            )
        finally:
            cursors.release(lease)

    shop.create(STOCK)
    return run


def cursor(cursors):
    [stream] = cursors.streams()
    return stream.value


def test_changed_rows_come_once_and_again_when_they_change(shop, shelf, cursors, changed):
    """Each run reads behind the cursor that the last one left."""
    fill(shop, [("a", 1, 10), ("b", 2, 10), ("c", 3, 10)], columns="sku, quantity, version")
    assert changed().imported == 3
    assert cursor(cursors) == "int:10|int:3"
    assert changed().imported == 0
    shop.run("UPDATE {table} SET quantity = 9, version = 11 WHERE sku = 'a'")
    assert changed().imported == 1
    assert shelf.stock == {"a": 9, "b": 2, "c": 3}


def test_the_cursor_stays_behind_what_the_application_has(shop, shelf, cursors, changed):
    """A failed page is read again by the next run, and those before it are not."""
    fill(shop, [(name, 1, 1) for name in "abcde"], columns="sku, quantity, version")
    shelf.fails_at = 2
    with pytest.raises(UnreachableError):
        changed()
    assert cursor(cursors) == "int:1|int:2"
    assert changed().imported == 3
    assert set(shelf.stock) == set("abcde")


def test_a_bad_row_is_told_and_comes_again_when_it_is_mended(shop, shelf, cursors, changed):
    """It does not hold the others up, and its mending is a change."""
    fill(shop, [("a", 1, 1), ("b", -1, 2), ("c", 1, 3)], columns="sku, quantity, version")
    imported = changed()
    assert (imported.imported, imported.bad) == (2, 1)
    assert imported.reasons[0].startswith("row 2: quantity: ")
    shop.run("UPDATE {table} SET quantity = 5, version = 4 WHERE sku = 'b'")
    assert changed().imported == 1
    assert shelf.stock["b"] == 5


def test_a_run_that_was_overtaken_does_not_move_the_cursor(shop, shelf, cursors, changed):
    """Whoever lost the lease learns it at the first page and changes nothing."""
    fill(shop, [("a", 1, 1)], columns="sku, quantity, version")
    send = shelf.send

    def overtaken(*arguments, **options):
        cursors.lease("stock", owner="run")  # a retry of the same run, elsewhere
        return send(*arguments, **options)

    shelf.send = overtaken
    with pytest.raises(LeaseLostError):
        changed()
    assert cursor(cursors) is None


def test_more_changes_within_the_overlap_than_one_run_takes_all_come(shop, shelf, changed):
    """Runs go on where the limit stopped the last one; one behind the end reads again."""
    fill(shop, [(f"s{n}", 1, 1000) for n in range(25)], columns="sku, quantity, version")
    for _ in range(3):
        imported = changed(overlap=10, max_rows=10)
    assert (len(shelf.stock), imported.is_all) == (25, True)
    shop.run("INSERT INTO {table} (id, sku, quantity, version) VALUES (99, 'late', 1, 995)")
    changed(overlap=10, max_rows=10)
    assert "late" in shelf.stock


def test_a_limit_just_at_the_end_does_not_put_the_overlap_off_for_ever(shop, shelf, changed):
    """The run that finds nothing behind it makes the next one read again."""
    fill(shop, [("a", 1, 1000), ("b", 1, 1000)], columns="sku, quantity, version")
    assert not changed(overlap=10, max_rows=2).is_all
    assert changed(overlap=10, max_rows=2).imported == 0
    assert changed(overlap=10, max_rows=9).imported == 2


def test_reading_again_does_not_move_the_cursor_back(shop, shelf, cursors, changed):
    """A run that fails within the overlap leaves the cursor where it was."""
    fill(shop, [(f"s{n}", 1, 1000 + n) for n in range(6)], columns="sku, quantity, version")
    changed(overlap=10)
    reached = cursor(cursors)
    shelf.calls, shelf.fails_at = 0, 2
    with pytest.raises(UnreachableError):
        changed(overlap=10)
    assert cursor(cursors) == reached


KILLED = """
    import sys, time
    from sqlalchemy import create_engine
    from tasks.core.connectors.sql.row_queue import RowQueue, RowQueueSettings

    settings = RowQueueSettings(
        table=sys.argv[2], key="id", columns=["sku", "quantity"], status_column="status"
    )
    with RowQueue(create_engine(sys.argv[1]), settings, system="test").lock(3) as locked:
        print(len(locked.rows), flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize("shop", ["postgresql", "mariadb"], indirect=True)
def test_the_rows_of_a_killed_process_wait_again(shop, shelf, eventually_free):
    """What a process had taken when it was killed is free, unmarked, and imported by the next."""
    shop.create(STOCK)
    fill(shop, [(name, 1) for name in "abcde"])
    url = shop.engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), url, shop.table],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "3\n"
    held = import_waiting_rows(waiting(shop), importer(shelf), key="id")
    assert (held.imported, set(shelf.stock)) == (2, {"d", "e"})
    process.kill()
    process.communicate()
    eventually_free(
        lambda: import_waiting_rows(waiting(shop), importer(shelf), key="id").imported == 3
    )
    assert set(shelf.stock) == set("abcde")
    assert shop.rows("DISTINCT status", order="1") == [("done",)]


@pytest.fixture
def eventually_free():
    """Waits until a server has noticed that a client is gone."""
    import time

    def wait(look):
        for _ in range(200):
            if look():
                return
            time.sleep(0.05)
        raise AssertionError("the rows did not become free")

    return wait
