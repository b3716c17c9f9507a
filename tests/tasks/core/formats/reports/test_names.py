"""File names from templates."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.formats.reports.names import report_name
from tasks.core.formats.reports.period import PeriodRule

WEEK = PeriodRule(unit="week", weekday="thursday", at="19:00", zone="Europe/Berlin").period_at(
    datetime(2026, 7, 23, 17, tzinfo=UTC)
)
MONTH = PeriodRule(unit="month", zone="Europe/Berlin").period_at(datetime(2026, 7, 23, tzinfo=UTC))


def named(template: str, period=WEEK, report: str = "sales", extension: str = ".csv") -> str:
    return report_name(template, report=report, period=period, extension=extension)


@pytest.mark.parametrize(
    ("template", "period", "name"),
    [
        ("{report}-{start}", WEEK, "sales-2026-07-16.csv"),
        ("{report} {end:%G-W%V}", WEEK, "sales 2026-W30.csv"),
        ("{report}-{end:%Y%m%dT%H%M%z}", WEEK, "sales-20260723T1900+0200.csv"),
        ("{start}_{last_day}", MONTH, "2026-06-01_2026-06-30.csv"),
        ("{report}-{zone}", WEEK, "sales-Europe-Berlin.csv"),
        ("Umsätze {end:%d.%m.%Y}", WEEK, "Umsätze 23.07.2026.csv"),
        ("fixed.CSV", WEEK, "fixed.CSV"),
    ],
)
def test_a_template_is_filled_in_the_zone(template: str, period, name: str):
    """Instants read as the wall clock of the schedule's zone does, in the asked format."""
    assert named(template, period) == name


@pytest.mark.parametrize(
    "template",
    [
        "{report.__class__}", "{report!r}", "{period}", "{0}", "{}", "a/b", "..", ".hidden",
        "{start:%H:%M}", "a\x00b", "nul\n", "x" * 201, "", " ", "{start:%Y/%m}", "C:\\x",
    ],
)  # fmt: skip
def test_a_template_that_gives_no_safe_name_is_refused(template: str):
    """Attribute look-ups, folders, control characters and reserved marks are refused."""
    with pytest.raises(ValueError, match=r"name|template"):
        named(template, extension="")


@given(template=st.text(max_size=40), report=st.text(max_size=40))
def test_any_template_gives_one_path_segment_or_an_error(template: str, report: str):
    """Whatever people type, the result is a single, visible, relative name or a ValueError."""
    try:
        name = named(template, report=report)
    except ValueError:
        return
    assert PurePosixPath(name).name == PureWindowsPath(name).name == name
    assert not name.startswith(".")
