"""How a metric alarm is evaluated: from the data points of its last periods to a state and the words for it.

As https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html has it: a few more data points than EvaluationPeriods are looked at, so
that missing ones count only when there are not enough others; what they then count as is TreatMissingData's.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

#: Data points looked at beyond EvaluationPeriods. AWS gives no number; its documented examples have two.
EXTRA_POINTS = 2
#: Data points that a reason names.
_NAMED = 5


class AlarmState(enum.StrEnum):
    """The state of an alarm."""

    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


class Missing(enum.StrEnum):
    """TreatMissingData."""

    BREACHING = "breaching"
    NOT_BREACHING = "notBreaching"
    IGNORE = "ignore"
    MISSING = "missing"


@dataclass(frozen=True)
class Comparison:
    """A ComparisonOperator: what breaches, and how reasons say it."""

    breaches: Callable[[float, float], bool]
    words: str


COMPARISONS: dict[str, Comparison] = {
    "GreaterThanOrEqualToThreshold": Comparison(operator.ge, "greater than or equal to"),
    "GreaterThanThreshold": Comparison(operator.gt, "greater than"),
    "LessThanThreshold": Comparison(operator.lt, "less than"),
    "LessThanOrEqualToThreshold": Comparison(operator.le, "less than or equal to"),
}


@dataclass(frozen=True)
class Condition:
    """What an alarm waits for.

    Attributes:
        comparison: ComparisonOperator.
        threshold: Threshold.
        periods: EvaluationPeriods.
        to_alarm: DatapointsToAlarm; None when the alarm does not set it, and all periods must breach.
        missing: TreatMissingData.
    """

    comparison: str
    threshold: float
    periods: int
    to_alarm: int | None = None
    missing: Missing = Missing.MISSING

    @property
    def needed(self) -> int:
        """Data points that must breach."""
        return self.periods if self.to_alarm is None else self.to_alarm

    def breaches(self, value: float) -> bool:
        """Tell whether a data point breaches."""
        return COMPARISONS[self.comparison].breaches(value, self.threshold)


@dataclass(frozen=True)
class Point:
    """A data point: the start of its period (seconds since 1970), its value, and of how many samples it is."""

    at: float
    value: float
    samples: float


@dataclass(frozen=True)
class Verdict:
    """An evaluation's result.

    Attributes:
        state: The state.
        reason: StateReason.
        points: The data points that it is of, the newest first.
    """

    state: AlarmState
    reason: str
    points: Sequence[Point]


def evaluate(condition: Condition, points: Sequence[Point | None]) -> Verdict | None:
    """Evaluate an alarm.

    Args:
        condition: What it waits for.
        points: The data points of its last ``periods + EXTRA_POINTS`` periods, the newest first; None where there is none.

    Returns:
        The state and why; None when it keeps its state whatever that is.
    """
    present = [point for point in points if point is not None][: condition.periods]
    filled = condition.periods - len(present)
    breaching = sum(condition.breaches(point.value) for point in present)
    if not present:
        if condition.missing is Missing.IGNORE:
            return None
        if condition.missing is Missing.MISSING:
            unknown = f"{filled} datapoint{'s were' if filled > 1 else ' was'} unknown"
            return Verdict(AlarmState.INSUFFICIENT_DATA, f"Insufficient Data: {unknown}.", present)
    if condition.missing is Missing.BREACHING:
        alarm = breaching + filled >= condition.needed
    elif condition.missing is Missing.NOT_BREACHING or breaching >= condition.needed or breaching < len(present):
        alarm = breaching >= condition.needed
    elif condition.missing is Missing.MISSING and _age(points, present[-1]) >= condition.needed:
        # Nothing but breaching data points, and missing ones that cannot make it better.
        alarm = True
    else:
        return None
    state = AlarmState.ALARM if alarm else AlarmState.OK
    return Verdict(state, _reason(condition, present, filled, breaching, alarm), present)


def _age(points: Sequence[Point | None], oldest: Point) -> int:
    return next(index for index, point in enumerate(points, 1) if point is oldest)


def _reason(condition: Condition, present: Sequence[Point], filled: int, breaching: int, alarm: bool) -> str:
    words = COMPARISONS[condition.comparison].words
    treated = ""
    if filled:
        kind = "Breaching" if condition.missing is Missing.BREACHING else "NonBreaching"
        treated = f"{filled} missing datapoint{'s were' if filled > 1 else ' was'} treated as [{kind}]"
    if not present:
        return f"Threshold Crossed: no datapoints were received for {filled} period{'s' if filled > 1 else ''} and {treated}."
    shown = [point for point in present if condition.breaches(point.value) == alarm][:_NAMED] or list(present[:_NAMED])
    listed = ", ".join(f"{number(point.value)} ({_moment(point.at)})" for point in shown)
    if condition.to_alarm is None:
        count = f"{len(shown)} datapoint{'s' if len(shown) > 1 else ''}"
        needed = ""
    else:
        crossing = breaching if alarm else len(present) - breaching
        count = f"{crossing} out of the last {len(present)} datapoints"
        least = condition.needed if alarm else condition.periods - condition.needed + 1
        needed = f" (minimum {least} datapoint{'s' if least > 1 else ''} for {'OK -> ALARM' if alarm else 'ALARM -> OK'} transition)"
    verb = "were" if (len(shown) if condition.to_alarm is None else crossing) > 1 else "was"
    text = f"Threshold Crossed: {count} [{listed}] {verb} {'' if alarm else 'not '}{words} the threshold ({number(condition.threshold)})"
    if treated and condition.missing in (Missing.BREACHING, Missing.NOT_BREACHING):
        text += f" and {treated}"
    return f"{text}{needed}."


def number(value: float) -> str:
    """Return a number as CloudWatch (that is, Java) writes it: ``1.0``, ``1.5E7``."""
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(float(value))
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    rest = "".join(map(str, digits[1:])) or "0"
    return f"{'-' if sign else ''}{digits[0]}.{rest}E{len(digits) - 1 + int(exponent)}"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%d/%m/%y %H:%M:%S")
