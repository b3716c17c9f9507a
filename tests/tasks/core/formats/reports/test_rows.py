"""Rows as typed columns."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from blocks.errors import BadPayloadError
from tasks.core.formats.reports.report import Report, ReportColumn
from tasks.core.formats.reports.rows import column_chunks

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def shape(report):
    def typed(values, kind: str):
        one = Report("r", "R", report.period, (ReportColumn(name="v", kind=kind),))
        frame = pd.DataFrame({"v": values})
        [[column]] = column_chunks(frame, one)
        return column

    return typed


@pytest.mark.parametrize(
    ("values", "kind", "typed"),
    [
        (["a", None, 5], "text", ["a", None, "5"]),
        (pd.array(["a", None], dtype="str"), "text", ["a", None]),
        (np.array([1, 2]), "integer", [1, 2]),
        ([1.0, float("nan")], "integer", [1, None]),
        (["7", 2**70, Decimal(3)], "integer", [7, 2**70, 3]),
        ([1.5, float("nan")], "number", [1.5, None]),
        (pd.array([1.5, pd.NA], dtype="Float64"), "number", [1.5, None]),
        (pd.array([1, pd.NA], dtype="Int64"), "integer", [1, None]),
        (["1.5", Decimal("2.25")], "number", [1.5, 2.25]),
        (["12.50", 0.1, 3], "money", [Decimal("12.50"), Decimal("0.1"), Decimal(3)]),
        (["2026-07-23", pd.NaT], "date", [date(2026, 7, 23), None]),
        ([date(2026, 1, 2)], "date", [date(2026, 1, 2)]),
        ([datetime(2026, 7, 23, 23, tzinfo=UTC)], "date", [date(2026, 7, 24)]),
        (["2026-07-23T17:00Z", None], "instant", [datetime(2026, 7, 23, 19, tzinfo=BERLIN), None]),
        (pd.to_datetime(["2026-01-01T00Z"]), "instant", [datetime(2026, 1, 1, 1, tzinfo=BERLIN)]),
        ([True, None], "yes_no", [True, None]),
        (np.array([True, False]), "yes_no", [True, False]),
    ],
)  # fmt: skip
def test_values_become_what_their_column_says(shape, values, kind, typed):
    """Whatever pandas made of a value, formats get plain Python, and None where there is none."""
    column = shape(values, kind)
    assert list(column) == typed
    assert [type(value) for value in column] == [type(value) for value in typed]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, "x"], "integer"),
        ([1, 1.5], "integer"),
        ([1, True], "integer"),
        ([1.0, float("inf")], "number"),
        (["1", "NaN?"], "money"),
        ([Decimal(1), Decimal("Infinity")], "money"),
        ([None, "23.07.2026"], "date"),
        ([None, datetime(2026, 7, 23)], "instant"),  # noqa: DTZ001
        ([None, "2026-07-23T17:00:00"], "instant"),
        ([None, "yes"], "yes_no"),
    ],
)
def test_a_value_of_another_kind_says_its_row(shape, values, kind):
    """The error names row and column and not the value, which may be private."""
    with pytest.raises(BadPayloadError, match="row 2, column 'v': expected") as caught:
        shape(values, kind)
    assert caught.value.line == 2


def test_rows_come_in_chunks_whatever_they_come_as(report, rows):
    """Frames, a list of records and a generator of records give the same values."""
    frame = pd.DataFrame(rows, dtype=object)

    def flat(source):
        columns = [[] for _ in report.columns]
        for chunk in column_chunks(source, report):
            for column, values in zip(columns, chunk, strict=True):
                column.extend(values)
        return columns

    expected = flat(frame)
    assert flat([frame.iloc[:1], frame.iloc[1:]]) == expected
    assert flat(rows) == expected
    assert flat(row for row in rows) == expected


def test_large_frames_are_cut(report, rows):
    """A chunk never holds more than 20,000 rows, and row numbers go on across chunks."""
    many = pd.DataFrame([rows[0]] * 45_000)
    assert [len(chunk[0]) for chunk in column_chunks(many, report)] == [20_000, 20_000, 5_000]
    many = many.astype({"lines": object})
    many.loc[40_000, "lines"] = "x"
    with pytest.raises(BadPayloadError, match="row 40001"):
        list(column_chunks(many, report))


def test_a_missing_field_is_named(report):
    """A column that the rows do not have is a clear error, not an empty column."""
    with pytest.raises(BadPayloadError, match="no field 'customer'"):
        list(column_chunks([{"order_no": "SO-1"}], report))
