"""A small report about one week, shared by the tests of all formats."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from tasks.plain.reports.period import PeriodRule
from tasks.plain.reports.report import Chart, Report, ReportColumn

COLUMNS = (
    ReportColumn(name="order_no", title="Order"),
    ReportColumn(name="customer", title="Customer"),
    ReportColumn(name="ordered_at", title="Ordered at", kind="instant"),
    ReportColumn(name="due", kind="date"),
    ReportColumn(name="lines", kind="integer", total=True),
    ReportColumn(name="weight", kind="number", total=True),
    ReportColumn(name="total", title="Total", kind="money", total=True),
    ReportColumn(name="paid", kind="yes_no"),
)


@pytest.fixture
def report() -> Report:
    """Orders of the week that ended on Thursday 23 July 2026, 19:00 in Berlin."""
    rule = PeriodRule(unit="week", weekday="thursday", at="19:00", zone="Europe/Berlin")
    return Report(
        name="sales",
        title="Weekly sales",
        period=rule.period_at(datetime(2026, 7, 23, 17, tzinfo=UTC)),
        columns=COLUMNS,
        chart=Chart(label="customer", value="total"),
    )


@pytest.fixture
def rows() -> list[dict]:
    """Three orders: a plain one, one that attacks spreadsheets, one with nothing in it."""
    return [
        {
            "order_no": "SO-1",
            "customer": "Müller & Söhne, GmbH",
            "ordered_at": datetime(2026, 7, 17, 8, 30, tzinfo=UTC),
            "due": date(2026, 8, 1),
            "lines": 3,
            "weight": 0.5,
            "total": Decimal("1234.50"),
            "paid": True,
        },
        {
            "order_no": "-SO-2",
            "customer": '=HYPERLINK("http://x.example","株式会社")',
            "ordered_at": datetime(2026, 7, 18, 22, 0, tzinfo=UTC),
            "due": None,
            "lines": -1,
            "weight": -2.25,
            "total": Decimal("-0.10"),
            "paid": False,
        },
        dict.fromkeys([column.name for column in COLUMNS], None),
    ]
