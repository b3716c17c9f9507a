"""What is new since the last time, however many rows share a time stamp."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import BadPayloadError
from tasks.core.connectors.sql.changed_rows import (
    ChangedRows,
    ChangedRowsSettings,
    _cursor,
    _earlier,
    _read_cursor,
)


@pytest.fixture
def changed(shop):
    """Makes a reader over a table whose rows have versions."""

    def changed(versions, **settings):
        shop.create("id INTEGER PRIMARY KEY, version INTEGER")
        shop.run(
            "INSERT INTO {table} (id, version) VALUES (:id, :version)",
            [{"id": n, "version": version} for n, version in enumerate(versions)],
        )
        fields = {"columns": ["id"], "version": "version", "key": "id", "table": shop.table}
        fields |= settings
        return ChangedRows(shop.engine, ChangedRowsSettings(**fields), system=shop.system)

    return changed


def everything(reader, cursor, limit=2):
    ids = []
    page = reader.first_page(cursor, limit=limit)
    while page.rows:
        ids += [row["id"] for row in page.rows]
        cursor = page.cursor
        page = reader.next_page(cursor, limit=limit)
    return ids, cursor


def test_rows_of_the_same_version_are_neither_lost_nor_doubled_at_a_page_border(changed):
    """Pages end in the middle of equal versions, and the next begins right behind."""
    ids, cursor = everything(changed([1, 1, 1, 1, 1, 2, 2]), None)
    assert ids == list(range(7))
    assert cursor == "int:2|int:6"


def test_only_what_changed_since_is_read(shop, changed):
    """The cursor of the last run is where the next begins."""
    reader = changed([1, 2, 3])
    _, cursor = everything(reader, None)
    assert everything(reader, cursor) == ([], cursor)
    shop.run("UPDATE {table} SET version = 4 WHERE id = 0")
    assert everything(reader, cursor) == ([0], "int:4|int:0")


def test_an_overlap_finds_what_was_committed_late(shop, changed):
    """A row that appears below the cursor is found by the run that reads a little again."""
    reader = changed([10, 20, 30], overlap=5)
    _, cursor = everything(reader, None)
    shop.run("INSERT INTO {table} (id, version) VALUES (9, 28)")
    assert everything(reader, cursor)[0] == [9, 2]


def test_a_query_is_read_like_a_table(shop, changed):
    """A SELECT of the user's own takes the place of a table."""
    query = f"SELECT id, version FROM {shop.table} WHERE id <> 1"
    reader = changed([1, 2, 3], table=None, query=query)
    assert everything(reader, None)[0] == [0, 2]


KEYS = (
    st.integers()
    | st.text(max_size=20).filter(lambda t: t.isprintable())
    | st.binary(max_size=8)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.datetimes(timezones=st.just(UTC))
    | st.dates()
)


@given(version=KEYS, key=KEYS)
def test_a_cursor_comes_back_as_what_it_was(version, key):
    """Numbers, texts, times and bytes survive being written down."""
    assert _read_cursor(_cursor(version, key)) == (version, key)


@pytest.mark.parametrize("text", ["", "x", "int:a|int:1", "bytes:0|int:1", "int:1"])
def test_what_is_no_cursor_is_refused(text):
    """A damaged cursor is an error and does not begin from the start."""
    with pytest.raises(BadPayloadError):
        _read_cursor(text)


@pytest.mark.parametrize(
    ("version", "earlier"),
    [
        (datetime(2026, 1, 1, 0, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
        (Decimal(100), Decimal(40)),
        (bytes.fromhex("0000000000000064"), bytes.fromhex("0000000000000028")),
        (date(2026, 1, 2), date(2026, 1, 2) - timedelta(seconds=60)),
    ],
)
def test_the_overlap_is_counted_in_the_versions_own_units(version, earlier):
    """Sixty are seconds of a time, and units of a number or of SQL Server's row version."""
    assert _earlier(version, 60) == earlier
