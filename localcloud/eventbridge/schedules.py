"""Schedule expressions: when a scheduled rule fires next, in UTC.

https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-scheduled-rule-pattern.html
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_RATE = re.compile(r"rate\((\d+) (minute|minutes|hour|hours|day|days)\)")
_CRON = re.compile(r"cron\((\S+) (\S+) (\S+) (\S+) (\S+) (\S+)\)")
_MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}
_MINUTE = timedelta(minutes=1)
_LAST_YEAR = 2199


class InvalidSchedule(ValueError):
    """Indicates that a text is no schedule expression."""


@dataclass(frozen=True)
class Rate:
    """Fires every *interval*, the first time one interval after the rule was made."""

    interval: timedelta

    def next_after(self, moment: datetime) -> datetime | None:
        """Return when it fires next."""
        return moment + self.interval


@dataclass(frozen=True)
class Cron:
    """Fires at the minutes that its six fields allow."""

    minutes: frozenset[int]
    hours: frozenset[int]
    day_of_month: str
    months: frozenset[int]
    day_of_week: str
    years: frozenset[int]

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first minute after *moment* at which it fires, or None when there is none."""
        candidate = moment.astimezone(UTC).replace(second=0, microsecond=0) + _MINUTE
        while candidate.year <= max(self.years):
            if candidate.year not in self.years or candidate.month not in self.months:
                year, month = (candidate.year, candidate.month + 1) if candidate.month < 12 else (candidate.year + 1, 1)
                candidate = datetime(year, month, 1, tzinfo=UTC)
            elif candidate.day not in self._days(candidate.year, candidate.month):
                candidate = candidate.replace(hour=0, minute=0) + timedelta(days=1)
            elif candidate.hour not in self.hours:
                candidate = candidate.replace(minute=0) + timedelta(hours=1)
            elif candidate.minute not in self.minutes:
                candidate += _MINUTE
            else:
                return candidate
        return None

    def _days(self, year: int, month: int) -> set[int]:
        length = calendar.monthrange(year, month)[1]
        if self.day_of_week == "?":
            return _month_days(self.day_of_month, year, month, length)
        return _week_days(self.day_of_week, year, month, length)


def parse_schedule(text: str) -> Rate | Cron:
    """Parse ``rate(...)`` or ``cron(...)``.

    Raises:
        InvalidSchedule: It is neither.
    """
    rate = _RATE.fullmatch(text)
    if rate is not None:
        value, unit = int(rate.group(1)), rate.group(2)
        if value == 0 or (value == 1) == unit.endswith("s"):
            raise InvalidSchedule(text)
        return Rate(timedelta(**{unit if unit.endswith("s") else unit + "s": value}))
    cron = _CRON.fullmatch(text)
    if cron is None:
        raise InvalidSchedule(text)
    minutes, hours, day_of_month, months, day_of_week, years = (field.upper() for field in cron.groups())
    if (day_of_month == "?") == (day_of_week == "?"):
        # AWS wants a "?" in exactly one of the two.
        raise InvalidSchedule(text)
    schedule = Cron(
        _field(minutes, 0, 59),
        _field(hours, 0, 23),
        day_of_month,
        _field(months, 1, 12, _MONTHS),
        day_of_week,
        _field(years, 1970, _LAST_YEAR),
    )
    _month_days(day_of_month, 2024, 1, 31) if day_of_week == "?" else _week_days(day_of_week, 2024, 1, 31)
    return schedule


def _field(text: str, low: int, high: int, names: dict[str, int] | None = None) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        if span == "*":
            first, last = low, high
        else:
            begin, dash, end = span.partition("-")
            first = _number(begin, names)
            last = _number(end, names) if dash else (high if slash else first)
        if not low <= first <= last <= high:
            raise InvalidSchedule(text)
        width = _number(step, None) if slash else 1
        if width < 1:
            raise InvalidSchedule(text)
        values.update(range(first, last + 1, width))
    return frozenset(values)


def _number(text: str, names: dict[str, int] | None) -> int:
    if names and text in names:
        return names[text]
    if not text.isdigit():
        raise InvalidSchedule(text)
    return int(text)


def _month_days(field: str, year: int, month: int, length: int) -> set[int]:
    if field == "L":
        return {length}
    if field.endswith("W"):
        return {_nearest_weekday(_number(field[:-1], None), year, month, length)}
    return {day for day in _field(field, 1, 31) if day <= length}


def _nearest_weekday(day: int, year: int, month: int, length: int) -> int:
    if not 1 <= day <= 31:
        raise InvalidSchedule(f"{day}W")
    day = min(day, length)
    weekday = calendar.weekday(year, month, day)
    if weekday == 5:
        return day - 1 if day > 1 else day + 2
    if weekday == 6:
        return day + 1 if day < length else day - 2
    return day


def _week_days(field: str, year: int, month: int, length: int) -> set[int]:
    if "#" in field:
        name, _, nth = field.partition("#")
        days = [day for day in range(1, length + 1) if _weekday(year, month, day) == _number(name, _DAYS)]
        index = _number(nth, None)
        if not 1 <= index <= 5 or not days:
            raise InvalidSchedule(field)
        return {days[index - 1]} if index <= len(days) else set()
    if field.endswith("L"):
        wanted = _number(field[:-1] or "7", _DAYS)
        days = [day for day in range(1, length + 1) if _weekday(year, month, day) == wanted]
        if not days:
            raise InvalidSchedule(field)
        return {days[-1]}
    wanted_days = _field(field, 1, 7, _DAYS)
    return {day for day in range(1, length + 1) if _weekday(year, month, day) in wanted_days}


def _weekday(year: int, month: int, day: int) -> int:
    """Return 1 for Sunday to 7 for Saturday."""
    return (calendar.weekday(year, month, day) + 1) % 7 + 1
