"""Turns pandas frames or plain records into typed columns in chunks; errors name the row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from itertools import chain, islice
from math import isfinite
from typing import Any, cast
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from blocks.errors import BadPayloadError
from tasks.core.formats.reports.report import Chunk, Kind, Report, ReportColumn
from tasks.core.threads import check_cancelled

Rows = pd.DataFrame | Iterable[pd.DataFrame] | Iterable[Mapping[str, Any]]
_CHUNK_ROWS = 20_000


def column_chunks(rows: Rows, report: Report) -> Iterator[Chunk]:
    """Yield the report's columns in chunks of bounded size, with values of the declared kinds.

    Args:
        rows: A frame, several frames in sequence, or records; fields without a column are left
            out. Memory holds one of the given frames and one chunk.
        report: The report, with its columns and zone.

    Yields:
        Per column a list of str, int, float, Decimal, date, aware datetime in the period's zone,
        or bool, with None where there is no value. Nothing if there are no rows.

    Raises:
        BadPayloadError: A column is missing or a value has the wrong kind; names the row.
    """
    zone = ZoneInfo(report.period.zone)
    first_row = 1
    for frame in _frames(rows, [column.name for column in report.columns]):
        for column in report.columns:
            if column.name not in frame.columns:
                raise BadPayloadError(
                    f"the rows have no field {column.name!r}; rename it or take the column out",
                    system=f"report {report.name}",
                    operation="shape",
                )
        for start in range(0, len(frame), _CHUNK_ROWS):
            check_cancelled()
            part = frame.iloc[start : start + _CHUNK_ROWS]
            yield [
                _typed(part[column.name], column, zone, report, first_row)
                for column in report.columns
            ]
            first_row += len(part)


def _frames(rows: Rows, names: Sequence[str]) -> Iterator[pd.DataFrame]:
    if isinstance(rows, pd.DataFrame):
        yield rows
        return
    rest = iter(rows)
    for first in rest:
        if isinstance(first, pd.DataFrame):
            yield first
        else:
            records = cast("Iterator[Mapping[str, Any]]", chain([first], rest))
            while batch := list(islice(records, _CHUNK_ROWS)):
                yield _frame(batch, names)
            return


def _frame(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> pd.DataFrame:
    # As objects: pandas would turn integers beside a missing value into floats.
    return pd.DataFrame(
        {
            name: pd.Series([record.get(name) for record in records], dtype=object)
            for name in names
            if any(name in record for record in records)
        }
    )


def _typed(
    series: pd.Series, column: ReportColumn, zone: ZoneInfo, report: Report, first_row: int
) -> Sequence[Any]:
    quick = _quick(series, column.kind, zone)
    if quick is not None:
        return quick
    convert = _CONVERTERS[column.kind]
    typed: list[Any] = []
    values = series.tolist()
    try:
        for value in values:
            typed.append(None if _is_missing(value) else convert(value, zone))  # noqa: PERF401
    except (ValueError, TypeError, InvalidOperation, OverflowError) as exc:
        row = first_row + len(typed)
        found = type(values[len(typed)]).__name__
        raise BadPayloadError(
            f"row {row}, column {column.name!r}: expected {_EXPECTED[column.kind]}, got a value of "
            f"type {found} instead; fix the row or the column's kind",
            system=f"report {report.name}",
            operation="shape",
            line=row,
        ) from exc
    return typed


def _quick(series: pd.Series, kind: Kind, zone: ZoneInfo) -> Sequence[Any] | None:
    """Return a column that numpy or pandas has typed already, else None to check each value."""
    code = series.dtype.kind
    if kind in {Kind.INTEGER, Kind.NUMBER} and code in "iu" and not series.hasnans:
        return series.tolist()
    if kind is Kind.NUMBER and code == "f":
        values = series.to_numpy(dtype=float, na_value=np.nan)
        if np.isfinite(values).all():
            return values.tolist()
        if not np.isinf(values).any():
            return [None if value != value else value for value in values.tolist()]
    if kind is Kind.YES_NO and code == "b" and not series.hasnans:
        return series.tolist()
    if kind is Kind.INSTANT and isinstance(series.dtype, pd.DatetimeTZDtype) and not series.hasnans:
        return list(series.dt.tz_convert(zone).dt.to_pydatetime())
    return None


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or value != value


def _text(value: Any, _zone: ZoneInfo) -> str:
    return value if isinstance(value, str) else str(value)


def _integer(value: Any, _zone: ZoneInfo) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError("a truth value is no number")
    whole = int(value)
    if not isinstance(value, str) and whole != value:
        raise ValueError("not whole")
    return whole


def _number(value: Any, _zone: ZoneInfo) -> float:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError("a truth value is no number")
    number = float(value)
    if not isfinite(number):
        raise ValueError("not finite")
    return number


def _money(value: Any, _zone: ZoneInfo) -> Decimal:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError("a truth value is no number")
    amount = Decimal(repr(float(value))) if isinstance(value, float) else Decimal(value)
    if not amount.is_finite():
        raise ValueError("not finite")
    return amount


def _date(value: Any, zone: ZoneInfo) -> date:
    if isinstance(value, str):
        return date.fromisoformat(value)
    if isinstance(value, datetime):
        return (value.astimezone(zone) if value.tzinfo else value).date()
    if isinstance(value, date):
        return value
    raise TypeError("no date")


def _instant(value: Any, zone: ZoneInfo) -> datetime:
    instant = datetime.fromisoformat(value) if isinstance(value, str) else value
    if isinstance(instant, pd.Timestamp):
        instant = instant.to_pydatetime(warn=False)
    if not isinstance(instant, datetime) or instant.tzinfo is None:
        raise TypeError("no aware instant")
    return instant.astimezone(zone)


def _yes_no(value: Any, _zone: ZoneInfo) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError("no truth value")
    return bool(value)


_CONVERTERS: dict[Kind, Callable[[Any, ZoneInfo], Any]] = {
    Kind.TEXT: _text,
    Kind.INTEGER: _integer,
    Kind.NUMBER: _number,
    Kind.MONEY: _money,
    Kind.DATE: _date,
    Kind.INSTANT: _instant,
    Kind.YES_NO: _yes_no,
}
_EXPECTED = {
    Kind.TEXT: "text",
    Kind.INTEGER: "a whole number",
    Kind.NUMBER: "a finite number",
    Kind.MONEY: "an amount such as 12.50",
    Kind.DATE: "a date such as 2026-07-23",
    Kind.INSTANT: "an instant with its offset such as 2026-07-23T17:00:00Z",
    Kind.YES_NO: "true or false",
}
