"""Timing: repeated runs, medians and percentiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        name: What was measured.
        value: The figure.
        unit: Its unit.
        target: What it should reach, in words.
        reached: Whether it does.
    """

    name: str
    value: float
    unit: str
    target: str
    reached: bool


def at_most(name: str, value: float, unit: str, limit: float) -> Figure:
    """Return a figure that should not be larger than *limit*."""
    return Figure(name, value, unit, f"≤ {limit:g}", value <= limit)


def at_least(name: str, value: float, unit: str, limit: float) -> Figure:
    """Return a figure that should not be smaller than *limit*."""
    return Figure(name, value, unit, f"≥ {limit:g}", value >= limit)


def seconds(function: Callable[[], object]) -> float:
    """Return how long one call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def repeated(function: Callable[[], object], times: int, warmup: int = 1) -> list[float]:
    """Return the seconds of each of *times* calls, after *warmup* that do not count."""
    for _ in range(warmup):
        function()
    return [seconds(function) for _ in range(times)]


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(percent / 100 * len(ordered)) - 1))]


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)
