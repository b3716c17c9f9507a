"""An ERP system that leaves its data in tables: stock that changes, and price lists that wait.

Its database is a SQLite file. The stock has a version that grows with each change; the price
lists are whole files in a binary column, with a column for what became of them.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from blocks.sql_database import SqlDatabase
from sandbox.scenarios import Sandbox

_EVERY_S = 90
_BAD_EVERY = 5  # so many price lists, one has a row that is to be rejected
_DEPOTS = ("North", "South")
_ARTICLES = 50
_TABLES = """
CREATE TABLE IF NOT EXISTS stock (
    item_no TEXT PRIMARY KEY, descr TEXT NOT NULL, on_hand INTEGER NOT NULL, depot TEXT,
    price TEXT NOT NULL, curr TEXT NOT NULL, row_version INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS stock_by_version ON stock (row_version, item_no);
CREATE TABLE IF NOT EXISTS outgoing_documents (
    id INTEGER PRIMARY KEY, file_name TEXT NOT NULL, content BLOB NOT NULL, status TEXT,
    reason TEXT
);
"""


@contextmanager
def run(sandbox: Sandbox) -> Iterator[None]:
    """Count stock and write a price list every now and then."""
    path = sandbox.data / "erp.db"
    with _open(path) as database:
        database.executescript(_TABLES)
    sandbox.blocks["sql-database/erp"] = SqlDatabase(kind="sqlite", database=str(path))
    numbers = itertools.count(1)

    def count_stock() -> None:
        with _open(path) as database:
            _count_stock(database)
        print("the ERP counted stock", flush=True)

    def write_price_list() -> None:
        with _open(path) as database:
            name = _write_price_list(database, next(numbers))
        print(f"the ERP wrote {name}", flush=True)

    sandbox.every(_EVERY_S, count_stock)
    sandbox.every(_EVERY_S, write_price_list)
    yield


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=30)) as database, database:
        yield database


def _count_stock(database: sqlite3.Connection) -> None:
    [newest] = database.execute("SELECT coalesce(max(row_version), 0) FROM stock").fetchone()
    rows = [
        (
            f"E-{article:04}",
            f"Spare part {article}",
            random.randint(0, 500),
            random.choice(_DEPOTS),
            f"{random.randint(100, 9_999) / 100:.2f}",
            "EUR",
            newest + number,
        )
        for number, article in enumerate(random.sample(range(_ARTICLES), 10), 1)
    ]
    database.executemany("INSERT OR REPLACE INTO stock VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def _write_price_list(database: sqlite3.Connection, number: int) -> str:
    lines = ["sku;name;price;currency"]
    for article in random.sample(range(_ARTICLES), 8):
        euros, cents = divmod(random.randint(100, 9_999), 100)
        lines.append(f"E-{article:04};Spare part {article};{euros},{cents:02};EUR")
    if number % _BAD_EVERY == 0:
        lines.append("E-9999;Without a price;on request;EUR")
    name = f"prices-{number:03}.csv"
    database.execute(
        "INSERT INTO outgoing_documents (file_name, content) VALUES (?, ?)",
        (name, "\r\n".join(lines).encode("cp1252")),
    )
    return name
