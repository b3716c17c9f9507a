"""Computes the period of a report from its scheduled time in the schedule's zone.

A period ends at the last *anchor* at or before the scheduled time and starts at the anchor before
it. So a run that starts late, is repeated or is started by hand reports the same period until the
next anchor has passed, and periods have neither gaps nor overlaps.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Unit(StrEnum):
    """The length of a period, in calendar units."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


class Weekday(StrEnum):
    """The days of the ISO week."""

    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"


class Period(NamedTuple):
    """A half-open span of time: it includes its start but not its end.

    Attributes:
        start_at: Aware UTC instant.
        end_at: Aware UTC instant.
        zone: IANA name of the zone in which it is shown.
    """

    start_at: datetime
    end_at: datetime
    zone: str

    @property
    def start(self) -> datetime:
        """The start as wall-clock time in the zone."""
        return self.start_at.astimezone(ZoneInfo(self.zone))

    @property
    def end(self) -> datetime:
        """The end as wall-clock time in the zone."""
        return self.end_at.astimezone(ZoneInfo(self.zone))

    @property
    def key(self) -> str:
        """The period's unique key, e.g. "20260716T170000Z--20260723T170000Z"."""
        return f"{self.start_at:%Y%m%dT%H%M%SZ}--{self.end_at:%Y%m%dT%H%M%SZ}"

    def __str__(self) -> str:
        """Format for people; whole days are shown as first and last day."""
        start, end = self.start, self.end
        if start.time() == end.time() == time():
            last = end.date() - timedelta(days=1)
            first = _spoken(start.date())
            return first if last == start.date() else f"{first} to {_spoken(last)}"
        return (
            f"{_spoken(start.date())}, {start:%H:%M} to {_spoken(end.date())}, {end:%H:%M} "
            f"({self.zone})"
        )


class PeriodRule(BaseModel):
    """Which period a report covers.

    For a report every Thursday at 19:00 about the seven days before it:
    `PeriodRule(unit="week", weekday="thursday", at="19:00", zone="Europe/Berlin")`. Without
    `weekday` and `at` a period is a whole calendar unit: the last full week, month and so on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: Unit = Field(default=Unit.WEEK, description="Length of a period.")
    weekday: Weekday = Field(
        default=Weekday.MONDAY, description="Day on which a week starts and ends; weeks only."
    )
    at: time = Field(default=time(), description="Wall-clock time at which a period starts.")
    zone: str = Field(default="UTC", description="IANA time zone of the schedule.")

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise ValueError(
                f"{value!r} is no IANA time zone; write one such as Europe/Berlin or UTC"
            ) from exc
        return value

    @field_validator("at")
    @classmethod
    def _wall_clock(cls, value: time) -> time:
        if value.tzinfo is not None or value.microsecond:
            raise ValueError("write a plain wall-clock time such as 19:00; the zone is `zone`")
        return value

    def period_at(self, scheduled_at: datetime) -> Period:
        """Return the last period that is over at `scheduled_at`.

        Args:
            scheduled_at: Aware instant for which the run was scheduled, not when it started.
        """
        if scheduled_at.tzinfo is None:
            raise ValueError("scheduled_at is aware: give its zone, e.g. datetime.now(UTC)")
        zone = ZoneInfo(self.zone)
        # Start a day ahead: where clocks go back over midnight, tomorrow's anchor may have passed.
        day = self._first_day(scheduled_at.astimezone(zone).date() + timedelta(days=1))
        while (end_at := _instant(day, self.at, zone)) > scheduled_at:
            day = self._before(day)
        # More than one step is needed only where a zone skipped a day, as Samoa did in 2011.
        while (start_at := _instant(day := self._before(day), self.at, zone)) >= end_at:
            pass
        return Period(start_at, end_at, self.zone)

    def _before(self, first_day: date) -> date:
        return self._first_day(first_day - timedelta(days=1))

    def _first_day(self, day: date) -> date:
        """Return the first day of the unit that contains `day`."""
        if self.unit is Unit.DAY:
            return day
        if self.unit is Unit.WEEK:
            into_week = day.weekday() - list(Weekday).index(self.weekday)
            return day - timedelta(days=into_week % 7)
        if self.unit is Unit.MONTH:
            return day.replace(day=1)
        if self.unit is Unit.QUARTER:
            return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
        return day.replace(month=1, day=1)


def _spoken(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


def _instant(day: date, wall: time, zone: ZoneInfo) -> datetime:
    """Return the instant when a wall clock in the zone first shows, or skips, this time.

    A repeated time (clocks go back) means its first pass. A skipped one (clocks go forward) means
    the jump itself: every scheduler fires at the jump or later, so no run comes before its anchor.
    """
    local = datetime.combine(day, wall, tzinfo=zone)
    before = local.replace(fold=0).astimezone(UTC)
    after = local.replace(fold=1).astimezone(UTC)
    if before <= after:
        return before
    # PEP 495: inside a gap fold=0 reads with the offset before the jump, which gives the later
    # instant. The jump lies between the two; zones jump on whole seconds.
    low, high = after, before
    offset = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return high
