"""A report in a table is there as a whole or not at all."""

from __future__ import annotations

import pytest
from sqlalchemy import column, create_engine, table
from sqlalchemy.dialects import mssql

from blocks.errors import BadPayloadError, UpstreamRejectedError
from tasks.core.connectors.sql.report_table import ReportTable

COLUMNS = ["id", "period", "amount"]


@pytest.fixture
def report(shop):
    """A table with two rows of an earlier report."""
    shop.create("id INTEGER PRIMARY KEY, period VARCHAR(10) NOT NULL, amount DECIMAL(10, 2)")
    shop.run("INSERT INTO {table} VALUES (1, 'W08', 1.50), (2, 'W09', 2.50)")
    return ReportTable(shop.engine, shop.table, COLUMNS, system=shop.system)


def row(id_, period="W09", amount="9.00"):
    return {"id": id_, "period": period, "amount": amount}


def seen(shop):
    return [(id_, period, f"{amount:.2f}") for id_, period, amount in shop.rows()]


def test_a_report_replaces_what_is_there(shop, report):
    """After a replacement the table holds the new rows and no others."""
    assert report.replace(row(n) for n in range(3000)) == 3000
    assert len(shop.rows()) == 3000


def test_a_report_sent_again_replaces_only_itself(shop, report):
    """Rows of another period stay."""
    for _ in range(2):
        report.replace([row(2), row(3)], where={"period": "W09"})
    assert seen(shop) == [(1, "W08", "1.50"), (2, "W09", "9.00"), (3, "W09", "9.00")]


def test_a_merge_updates_by_key_and_inserts_the_rest(shop, report):
    """Rows that are there are updated, others are added, and nothing is deleted."""
    for _ in range(2):
        assert report.merge([row(2, amount="7.00"), row(5)], key=["id"]) == 2
    assert seen(shop) == [(1, "W08", "1.50"), (2, "W09", "7.00"), (5, "W09", "9.00")]


def test_a_report_that_fails_leaves_the_table_as_it_was(shop, report):
    """Neither a row that breaks a constraint nor an error while reading changes anything."""
    before = seen(shop)

    def broken():
        yield row(7)
        raise RuntimeError

    with pytest.raises(UpstreamRejectedError):
        report.replace([row(7), {"id": 8, "period": None, "amount": "1"}])
    with pytest.raises(RuntimeError):
        report.replace(broken())
    assert seen(shop) == before


def test_a_key_that_comes_twice_is_refused(shop, report):
    """Which of two rows would win is not left to chance."""
    with pytest.raises(BadPayloadError, match="same id"):
        report.merge([row(4), row(4)], key=["id"])
    assert len(seen(shop)) == 2


def test_the_statements_for_sql_server(report):
    """On SQL Server the merge is an UPDATE with FROM and a guarded INSERT."""
    staging = table("#staging", *(column(name) for name in COLUMNS))
    update, insert = (
        " ".join(str(each.compile(dialect=mssql.dialect())).split())
        for each in report.merge_statements(staging, ["id"])
    )
    assert "[#staging]" in update.partition("FROM")[2]
    assert "WITH (UPDLOCK, HOLDLOCK)" in insert
    assert "NOT (EXISTS" in insert


def test_the_staging_table_of_sql_server_may_have_any_column():
    """A name that looks like a part of the statement is a name."""
    columns = ["FROM_DATE", "VALID FROM", "amount"]
    report = ReportTable(create_engine("sqlite://"), "rates", columns, system="mssql://sandbox")
    statement = report.staging_statement("#staging", mssql.dialect())
    assert " ".join(statement.split()) == (
        "SELECT rates.[FROM_DATE], rates.[VALID FROM], rates.amount "
        "INTO [#staging] FROM rates WHERE 1 = 0"
    )
