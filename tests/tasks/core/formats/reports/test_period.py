"""The period a report covers."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.core.formats.reports.period import PeriodRule, Unit, Weekday

BERLIN = ZoneInfo("Europe/Berlin")
THURSDAY_19 = PeriodRule(unit="week", weekday="thursday", at="19:00", zone="Europe/Berlin")

# Half-hour and midnight changes, southern hemisphere, Ramadan changes, a day left out, no changes.
ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Casablanca",
    "Asia/Beirut",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "UTC",
]
RULES = st.builds(
    PeriodRule,
    unit=st.sampled_from(Unit),
    weekday=st.sampled_from(Weekday),
    at=st.times().map(lambda at: at.replace(microsecond=0))
    | st.just(time())
    | st.just(time(2, 30)),
    zone=st.sampled_from(ZONES),
)
INSTANTS = st.datetimes(
    min_value=datetime(1987, 1, 1),  # noqa: DTZ001 (hypothesis wants it so)
    max_value=datetime(2037, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@given(rule=RULES, scheduled_at=INSTANTS)
def test_periods_touch(rule: PeriodRule, scheduled_at: datetime):
    """Over every change of clocks a period is over at its time and ends where the next starts."""
    period = rule.period_at(scheduled_at)
    assert period.start_at < period.end_at <= scheduled_at
    assert rule.period_at(period.end_at) == period
    before = rule.period_at(period.end_at - timedelta(microseconds=1))
    assert before.end_at == period.start_at


@given(rule=RULES, scheduled_at=INSTANTS, share=st.floats(0, 1, exclude_max=True))
def test_a_late_or_repeated_run_reports_the_same_period(
    rule: PeriodRule, scheduled_at: datetime, share: float
):
    """A run late by anything less than a whole further period reports the same one."""
    period = rule.period_at(scheduled_at)
    probe = period.end_at
    while rule.period_at(probe) == period:
        probe += timedelta(hours=12)
    following = rule.period_at(probe)
    late_at = period.end_at + share * (following.end_at - period.end_at)
    if late_at < following.end_at:  # rounding to microseconds may reach it
        assert rule.period_at(late_at) == period


@given(rule=RULES, scheduled_at=INSTANTS)
def test_anchors_are_wall_clock_times(rule: PeriodRule, scheduled_at: datetime):
    """Both ends show the rule's wall-clock time, or the first time after a jump that skips it."""
    zone = ZoneInfo(rule.zone)
    for instant in rule.period_at(scheduled_at)[:2]:
        local = instant.astimezone(zone)
        if local.time() != rule.at:
            just_before = (instant - timedelta(seconds=1)).astimezone(zone)
            assert just_before.utcoffset() != local.utcoffset()
        elif rule.unit is Unit.WEEK:
            assert local.strftime("%A").lower() == rule.weekday


@pytest.mark.parametrize(
    ("scheduled", "hours"),
    [("2026-03-26 19:00", 168), ("2026-04-02 19:00", 167), ("2026-10-29 19:00", 169)],
)
def test_a_week_keeps_its_wall_clock_across_the_change(scheduled: str, hours: int):
    """The week with the change in it is an hour shorter or longer, and starts and ends at 19:00."""
    at = datetime.fromisoformat(scheduled).replace(tzinfo=BERLIN)
    period = THURSDAY_19.period_at(at)
    assert period.end == at
    assert period.start.strftime("%A %H:%M") == "Thursday 19:00"
    assert period.end_at - period.start_at == timedelta(hours=hours)


def test_a_skipped_anchor_is_the_jump_itself():
    """On the night of the jump nothing shows 02:30: a run at 03:00 still gets that night."""
    rule = PeriodRule(unit="day", at="02:30", zone="Europe/Berlin")
    jump_at = datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert rule.period_at(jump_at).end_at == jump_at


def test_a_repeated_anchor_is_its_first_pass():
    """02:30 that happens twice ends the period the first time, and only then."""
    rule = PeriodRule(unit="day", at="02:30", zone="Europe/Berlin")
    first = rule.period_at(datetime(2026, 10, 25, 0, 30, tzinfo=UTC))
    second = rule.period_at(datetime(2026, 10, 25, 1, 30, tzinfo=UTC))
    assert first == second
    assert first.end_at == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_clocks_that_go_back_over_midnight_do_not_bring_a_period_back():
    """In St. John's 00:01 became 23:01 of the day before: the day that was over stays over."""
    rule = PeriodRule(unit="day", zone="America/St_Johns")
    midnight = datetime(2006, 10, 29, 2, 30, tzinfo=UTC)
    again_before_midnight = midnight + timedelta(minutes=15)
    assert rule.period_at(again_before_midnight).end_at == midnight


@pytest.mark.parametrize(
    ("rule", "text", "key"),
    [
        (THURSDAY_19, "16 July 2026, 19:00 to 23 July 2026, 19:00 (Europe/Berlin)",
         "20260716T170000Z--20260723T170000Z"),
        (PeriodRule(unit="month"), "1 June 2026 to 30 June 2026",
         "20260601T000000Z--20260701T000000Z"),
        (PeriodRule(unit="day"), "25 July 2026", "20260725T000000Z--20260726T000000Z"),
        (PeriodRule(unit="quarter"), "1 April 2026 to 30 June 2026",
         "20260401T000000Z--20260701T000000Z"),
        (PeriodRule(unit="year"), "1 January 2025 to 31 December 2025",
         "20250101T000000Z--20260101T000000Z"),
    ],
)  # fmt: skip
def test_a_period_says_itself_as_people_do(rule: PeriodRule, text: str, key: str):
    """Whole days are named by their first and last one, other spans by both wall clocks."""
    period = rule.period_at(datetime(2026, 7, 26, 12, tzinfo=UTC))
    assert (str(period), period.key) == (text, key)


def test_a_naive_instant_is_refused():
    """A time without a zone means nothing here."""
    with pytest.raises(ValueError, match="aware"):
        THURSDAY_19.period_at(datetime(2026, 7, 23, 19))  # noqa: DTZ001


@pytest.mark.parametrize(
    "fields", [{"zone": "Berlin"}, {"zone": "../etc/passwd"}, {"at": "19:00+02:00"}, {"hour": 3}]
)
def test_a_rule_that_says_nothing_sensible_is_refused(fields: dict):
    """Unknown zones, times with an offset and unknown fields are refused when the rule is made."""
    with pytest.raises(ValidationError):
        PeriodRule(**fields)
