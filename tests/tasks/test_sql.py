"""Reports get into other systems' tables, on a real Prefect server."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from prefect import flow
from sqlalchemy import text

from blocks.sql_database import SqlDatabase
from tasks.sql import write_report_table

# Prefect's own clients leave sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.usefixtures("prefect_server"),
]


def run(task, *arguments, **options):
    """Call a task in a flow; returns the type of its state."""
    seen: list[str] = []

    @flow(name=f"test-{uuid.uuid4().hex[:8]}")
    async def outcome():
        state = await task(*arguments, **options, return_state=True)
        seen.append(state.type.value)

    asyncio.run(outcome())
    return seen[0]


@pytest.fixture
def shop(tmp_path):
    """Another system's database with four rows."""
    block = SqlDatabase(kind="sqlite", database=str(tmp_path / "shop.db"))
    with block.get_client().begin() as connection:
        connection.execute(text("CREATE TABLE stock (id INTEGER PRIMARY KEY, sku, qty)"))
        connection.execute(
            text("INSERT INTO stock (sku, qty) VALUES ('A', 1), ('B', -2), ('C', 3), ('D', 4)")
        )
    return block


def test_a_report_is_written_into_a_table(shop):
    """The task replaces rows, or merges them by their key."""
    rows = [{"sku": "A", "qty": 9}]
    columns = ["sku", "qty"]
    assert run(write_report_table, shop, "stock", rows, columns=columns, key=["sku"]) == "COMPLETED"
    run(write_report_table, shop, "stock", rows, columns=columns, replace_where={"sku": "B"})
    with shop.get_client().connect() as connection:
        found = connection.execute(text("SELECT sku, qty FROM stock ORDER BY sku, qty")).all()
    assert [tuple(row) for row in found] == [("A", 9), ("A", 9), ("C", 3), ("D", 4)]
