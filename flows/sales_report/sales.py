"""What the sales report shows: one row an order, with a column of totals for each currency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tasks.reports import Chart, Kind, Period, Report, ReportColumn

_USUAL_CURRENCY = "EUR"  # of a period without orders
_COLUMNS = (
    ReportColumn(name="order_no", title="Order"),
    ReportColumn(name="ordered_at", title="Ordered at", kind=Kind.INSTANT),
    ReportColumn(name="customer", title="Customer"),
    ReportColumn(name="status", title="Status"),
    ReportColumn(name="articles", title="Articles", kind=Kind.INTEGER),
    ReportColumn(name="pieces", title="Pieces", kind=Kind.INTEGER, total=True),
)


def sales_of(
    orders: Sequence[Mapping[str, Any]], period: Period, *, name: str, title: str
) -> tuple[Report, pd.DataFrame]:
    """The report on a period, and its rows.

    Args:
        orders: As the application gives them, in order of change: of one that changed while the
            list was read the later version counts. Those of other times are left out.
        period: What the report covers.
        name: Names files and delivery records.
        title: What a reader sees.

    Returns:
        The report, with a chart of the most frequent currency by customer; and its rows by time,
        each amount in the column of its currency.
    """
    rows = pd.DataFrame(
        [
            {
                "order_no": order["order_no"],
                "ordered_at": order["ordered_at"],
                "customer": order["customer"],
                "status": order["status"],
                "articles": len(order["lines"]),
                "pieces": sum(line["quantity"] for line in order["lines"]),
                "total": order["total"],
                "currency": order["currency"],
            }
            for order in orders
        ],
        columns=[*(column.name for column in _COLUMNS), "total", "currency"],
    )
    rows = rows.drop_duplicates("order_no", keep="last", ignore_index=True)
    rows["ordered_at"] = pd.to_datetime(rows["ordered_at"], utc=True, format="ISO8601")
    inside = (rows["ordered_at"] >= period.start_at) & (rows["ordered_at"] < period.end_at)
    rows = rows[inside].sort_values(["ordered_at", "order_no"], ignore_index=True)
    currencies = rows["currency"].value_counts().index.tolist() or [_USUAL_CURRENCY]
    for currency in currencies:
        rows[_column(currency)] = rows["total"].where(rows["currency"] == currency, None)
    totals = tuple(
        ReportColumn(name=_column(currency), title=f"Total {currency}", kind=Kind.MONEY, total=True)
        for currency in currencies
    )
    chart = Chart(label="customer", value=_column(currencies[0]))
    return Report(name, title, period, (*_COLUMNS, *totals), chart), rows


def _column(currency: str) -> str:
    return f"total_{currency.lower()}"
