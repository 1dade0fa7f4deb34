"""The samples of all metrics: by the second for ten minutes, then by the minute for fifteen days, as long as there is room.

Adding a sample is a few dictionary accesses, as every invocation and execution adds dozens; what was added is written to the state file every few seconds.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from localcloud.cloudwatch.samples import Samples, merged
from localcloud.database import Database
from localcloud.errors import LocalCloudError

log = logging.getLogger(__name__)

#: Seconds for which samples are kept by the second, and after which they are forgotten.
FINE_SECONDS = 600
KEPT_SECONDS = 15 * 86_400
#: Seconds and minutes kept at most, of all metrics; the oldest go first. Some 40 MB when all are in use.
MAX_SPANS = 150_000
#: Seconds between a sample and its being written to the state file, and between two looks for what is too old.
SAVE_SECONDS = 10.0
_SWEEP_SECONDS = 60.0
#: Seconds of one document in the state file.
_CHUNK = 300
_KIND = "cloudwatch.samples"

Dimensions = tuple[tuple[str, str], ...]


class Metric(NamedTuple):
    """What identifies a metric.

    Attributes:
        namespace: E.g. ``AWS/Lambda``.
        name: E.g. ``Duration``.
        dimensions: (name, value) pairs, sorted.
    """

    namespace: str
    name: str
    dimensions: Dimensions = ()


class _Series:
    """The samples of one metric in one unit."""

    __slots__ = ("minutes", "seconds", "unit")

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.seconds: dict[int, Samples] = {}
        self.minutes: dict[int, Samples] = {}

    def between(self, start: float, end: float) -> Iterator[tuple[int, Samples]]:
        for spans in (self.minutes, self.seconds):
            if end - start < len(spans):
                found = ((at, spans.get(at)) for at in range(int(start), int(end) + 1))
                yield from ((at, samples) for at, samples in found if samples is not None and start <= at < end)
            else:
                yield from ((at, samples) for at, samples in spans.items() if start <= at < end)


class MetricStore:
    """All metrics of the region.

    Args:
        database: Where they are kept.
        clock: The present time, in seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._metrics: dict[Metric, dict[str, _Series]] = {}
        self._unsaved: set[tuple[Metric, str, int]] = set()
        self._swept = clock()
        self._timer: threading.Timer | None = None
        self._closed = False

    def load(self) -> None:
        """Read what an earlier process kept."""
        for key, body in self._database.read(_KIND).items():
            namespace, name, dimensions, unit, _ = json.loads(key)
            series = self._series(Metric(namespace, name, tuple((n, v) for n, v in dimensions)), unit)
            for at, fine, count, total, low, high, values, opaque, coarse in json.loads(body):
                kept = None if values is None else dict(values)
                (series.seconds if fine else series.minutes)[at] = Samples(count, total, low, high, kept, opaque, coarse)

    def close(self) -> None:
        """Write what is not written yet."""
        with self._lock:
            self._closed = True
            timer = self._timer
        if timer is not None:
            timer.cancel()
        self.save()

    def add(self, metric: Metric, value: float, unit: str, at: float | None = None, count: float = 1.0) -> None:
        """Add *count* samples of one value.

        Args:
            metric: The metric.
            value: The value.
            unit: E.g. ``Count``, ``Milliseconds``, ``None``.
            at: Seconds since 1970; now when None.
            count: How many samples.
        """
        present = self._clock()
        with self._lock:
            spans, key = self._place(metric, unit, present if at is None else at, present)
            samples = spans.get(key)
            if samples is None:
                spans[key] = Samples.of(value, count)
            else:
                samples.add(value, count)
            self._added(present)

    def add_set(self, metric: Metric, samples: Samples, unit: str, at: float | None = None) -> None:
        """Add the samples of a statistic set."""
        present = self._clock()
        with self._lock:
            spans, key = self._place(metric, unit, present if at is None else at, present)
            if key in spans:
                spans[key].merge(samples)
            else:
                spans[key] = samples.copy()
            self._added(present)

    def metrics(self) -> list[Metric]:
        """Return every metric that has samples."""
        with self._lock:
            return sorted(metric for metric, by_unit in self._metrics.items() if by_unit)

    def samples(self, metric: Metric, start: float, end: float, unit: str | None = None) -> Samples | None:
        """Return a metric's samples from *start* up to, not including, *end* (seconds since 1970); None when there are none."""
        return self.periods(metric, start, end, end - start, unit).get(0)

    def periods(self, metric: Metric, start: float, end: float, period: float, unit: str | None = None) -> dict[int, Samples]:
        """Return a metric's samples of each period of *period* seconds from *start* on, by its number from 0; periods without samples are left out."""
        found: dict[int, list[Samples]] = {}
        with self._lock:
            for series in self._metrics.get(metric, {}).values():
                if unit is None or series.unit == unit:
                    for at, samples in series.between(start, end):
                        found.setdefault(int((at - start) // period), []).append(samples)
            together = ((number, merged(parts)) for number, parts in found.items())
            return {number: samples for number, samples in together if samples is not None}

    def unit(self, metric: Metric) -> str | None:
        """Return the unit of a metric's samples, if they have but one."""
        units = list(self._metrics.get(metric, {}))
        return units[0] if len(units) == 1 else None

    def save(self) -> None:
        """Write to the state file what changed since the last time."""
        with self._lock:
            unsaved, self._unsaved = self._unsaved, set()
            self._timer = None
            chunks = {json.dumps([*key[0], key[1], key[2]]): self._chunk(*key) for key in unsaved}
        puts = {key: json.dumps(rows) for key, rows in chunks.items() if rows}
        try:
            if chunks:
                self._database.write(_KIND, puts, [key for key, rows in chunks.items() if not rows])
        except LocalCloudError as error:
            log.warning("%s The samples of metrics are tried again with the next ones.", error)
            with self._lock:
                self._unsaved |= unsaved

    def _series(self, metric: Metric, unit: str) -> _Series:
        by_unit = self._metrics.get(metric)
        if by_unit is None:
            by_unit = self._metrics[metric] = {}
        series = by_unit.get(unit)
        if series is None:
            series = by_unit[unit] = _Series(unit)
        return series

    def _place(self, metric: Metric, unit: str, at: float, present: float) -> tuple[dict[int, Samples], int]:
        second = int(at)
        self._unsaved.add((metric, unit, second - second % _CHUNK))
        series = self._series(metric, unit)
        if present - at <= FINE_SECONDS:
            return series.seconds, second
        return series.minutes, second - second % 60

    def _added(self, present: float) -> None:
        if present - self._swept > _SWEEP_SECONDS:
            self._sweep(present)
        if self._timer is None and not self._closed:
            self._timer = threading.Timer(SAVE_SECONDS, self.save)
            self._timer.daemon = True
            self._timer.start()

    def _sweep(self, present: float) -> None:
        """Turn seconds into minutes, forget what is too old, and the oldest of what is too much."""
        self._swept = present
        total = 0
        for metric, by_unit in list(self._metrics.items()):
            for unit, series in list(by_unit.items()):
                for at in [at for at in series.seconds if at < present - FINE_SECONDS]:
                    samples = series.seconds.pop(at)
                    minute = at - at % 60
                    if minute in series.minutes:
                        series.minutes[minute].merge(samples)
                    else:
                        series.minutes[minute] = samples
                    self._unsaved.add((metric, unit, at - at % _CHUNK))
                self._forget(metric, series, [at for at in series.minutes if at < present - KEPT_SECONDS])
                total += len(series.seconds) + len(series.minutes)
        if total > MAX_SPANS:
            every = [
                (at, metric, series) for metric, by_unit in self._metrics.items() for series in by_unit.values() for at in series.minutes
            ]
            every.sort(key=lambda item: item[0])
            for at, metric, series in every[: total - MAX_SPANS]:
                self._forget(metric, series, [at])
        for metric, by_unit in list(self._metrics.items()):
            for unit, series in list(by_unit.items()):
                if not series.seconds and not series.minutes:
                    del by_unit[unit]
            if not by_unit:
                del self._metrics[metric]

    def _forget(self, metric: Metric, series: _Series, minutes: Iterable[int]) -> None:
        for at in minutes:
            del series.minutes[at]
            self._unsaved.add((metric, series.unit, at - at % _CHUNK))

    def _chunk(self, metric: Metric, unit: str, start: int) -> list[list[object]]:
        series = self._metrics.get(metric, {}).get(unit)
        if series is None:
            return []
        rows: list[list[object]] = []
        for fine, spans in ((True, series.seconds), (False, series.minutes)):
            for at in range(start, start + _CHUNK, 1 if fine else 60):
                samples = spans.get(at)
                if samples is not None:
                    values = None if samples.values is None else list(samples.values.items())
                    rows.append([at, fine, samples.count, samples.total, samples.low, samples.high, values, samples.opaque, samples.coarse])
        return rows
