"""What is kept of the samples of a metric that fall into one second or minute, and the statistics that can be had of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from localcloud.errors import ServiceError, not_supported

#: Distinct values of which a bucket knows each; of more it knows the size to within 1 %, which is what percentiles are then exact to.
DISTINCT_VALUES = 64
_LOG_BASE = math.log(1.02)
_PERCENTILE = re.compile(r"[pP](\d{1,3}(?:\.\d{1,10})?)")


@dataclass(slots=True)
class Samples:
    """Samples of one metric in one span of time.

    Attributes:
        count: How many.
        total: Their sum.
        low: The smallest.
        high: The largest.
        values: How often each value occurs. None while all are the same, and for statistic sets, of which nobody knows the values.
        opaque: Whether statistic sets are among them, so that there are no percentiles.
        coarse: Whether values are known to within 1 % only.
    """

    count: float
    total: float
    low: float
    high: float
    values: dict[float, float] | None = None
    opaque: bool = False
    coarse: bool = False

    @classmethod
    def of(cls, value: float, count: float = 1.0) -> Samples:
        """Return *count* samples of one value."""
        return cls(count, value * count, value, value)

    def add(self, value: float, count: float = 1.0) -> None:
        """Take in *count* samples of one value."""
        if self.values is None and not self.opaque and (value != self.low or value != self.high):
            self.values = {self.low: self.count}
        if self.values is not None:
            kept = _rounded(value) if self.coarse else value
            self.values[kept] = self.values.get(kept, 0.0) + count
            if not self.coarse and len(self.values) > DISTINCT_VALUES:
                self._coarsen()
        self.count += count
        self.total += value * count
        if value < self.low:
            self.low = value
        if value > self.high:
            self.high = value

    def merge(self, other: Samples) -> None:
        """Take in all samples of another span of time."""
        if self.opaque or other.opaque:
            self.opaque, self.values = True, None
        elif (
            self.values is not None or other.values is not None or other.low != self.low or self.low != self.high or other.low != other.high
        ):
            mine = {self.low: self.count} if self.values is None else self.values
            theirs = {other.low: other.count} if other.values is None else other.values
            self.values = dict(mine)
            for value, count in theirs.items():
                self.values[value] = self.values.get(value, 0.0) + count
            self.coarse = self.coarse or other.coarse
            if self.coarse or len(self.values) > DISTINCT_VALUES:
                self._coarsen()
        self.count += other.count
        self.total += other.total
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    def copy(self) -> Samples:
        """Return samples that can be merged into without changing these."""
        return Samples(
            self.count, self.total, self.low, self.high, None if self.values is None else dict(self.values), self.opaque, self.coarse
        )

    def percentile(self, percent: float) -> float | None:
        """Return the value that *percent* of the samples do not exceed (nearest rank); None when the values are not known."""
        if self.opaque:
            return None
        if self.values is None:
            return self.low
        rank = percent / 100 * self.count
        seen = 0.0
        for value in sorted(self.values):
            seen += self.values[value]
            if seen >= rank - 1e-9:
                return min(max(value, self.low), self.high)
        return self.high

    def _coarsen(self) -> None:
        values, self.values, self.coarse = self.values or {}, {}, True
        for value, count in values.items():
            key = _rounded(value)
            self.values[key] = self.values.get(key, 0.0) + count


def _rounded(value: float) -> float:
    if value == 0:
        return 0.0
    return math.copysign(math.exp(round(math.log(abs(value)) / _LOG_BASE) * _LOG_BASE), value)


def merged(parts: Iterable[Samples]) -> Samples | None:
    """Return all samples of several spans of time; None when there are none."""
    found: Samples | None = None
    for part in parts:
        if found is None:
            found = part.copy()
        else:
            found.merge(part)
    return found


Statistic = Callable[[Samples], float | None]

_SIMPLE: dict[str, Statistic] = {
    "SampleCount": lambda samples: samples.count,
    "Sum": lambda samples: samples.total,
    "Average": lambda samples: samples.total / samples.count,
    "Minimum": lambda samples: samples.low,
    "Maximum": lambda samples: samples.high,
}


def statistic(name: str) -> Statistic:
    """Return the function of a statistic: SampleCount, Sum, Average, Minimum, Maximum or a percentile such as p99.9.

    Raises:
        ServiceError: There is no such statistic, or it is a trimmed one (TM, WM, TC, TS, PR, IQM), which is not played.
    """
    if name in _SIMPLE:
        return _SIMPLE[name]
    match = _PERCENTILE.fullmatch(name)
    if match and float(match[1]) <= 100:
        percent = float(match[1])
        return lambda samples: samples.percentile(percent)
    if re.match(r"(?i)(tm|wm|tc|ts|pr|iqm)", name):
        raise not_supported(
            f"The statistic {name} (supported: SampleCount, Sum, Average, Minimum, Maximum, percentiles)", "ValidationError"
        )
    raise ServiceError("InvalidParameterValue", f"The value {name} for parameter Stat is not supported.")
