"""Samples of metrics: what is kept of them, for how long, and which statistics can be had."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.cloudwatch import store as store_module
from localcloud.cloudwatch.samples import DISTINCT_VALUES, Samples, merged, statistic
from localcloud.cloudwatch.store import FINE_SECONDS, KEPT_SECONDS, Metric, MetricStore
from localcloud.database import Database
from localcloud.errors import ServiceError

LATENCY = Metric("AWS/SageMaker", "ModelLatency", (("EndpointName", "e"), ("VariantName", "v")))
NOW = 1_800_000_000.0
VALUES = st.lists(st.floats(-1e9, 1e9) | st.integers(-5, 5).map(float), min_size=1, max_size=2 * DISTINCT_VALUES)


class Clock:
    """A time that tests set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> MetricStore:
    return MetricStore(Database(tmp_path / "db"), clock)


def gathered(values: list[float]) -> Samples:
    samples = Samples.of(values[0])
    for value in values[1:]:
        samples.add(value)
    return samples


@given(values=VALUES, cut=st.integers(0, 200))
def test_statistics_do_not_depend_on_how_samples_were_gathered(values: list[float], cut: int) -> None:
    whole = gathered(values)
    parts = [gathered(part) for part in (values[:cut], values[cut:]) if part]
    again = merged(parts)
    assert again is not None
    for name in ("SampleCount", "Sum", "Minimum", "Maximum"):
        assert statistic(name)(again) == pytest.approx(statistic(name)(whole), rel=1e-9, abs=1e-3)
    ordered = sorted(values)
    for percent in (1.0, 50.0, 90.0, 99.9, 100.0):
        rank = max(1, -(-len(ordered) * percent // 100))
        exact = ordered[int(rank) - 1]
        for samples in (whole, again):
            found = samples.percentile(percent)
            assert found is not None
            if len(set(values)) <= DISTINCT_VALUES:
                assert found == exact
            else:
                assert found == pytest.approx(exact, rel=0.011, abs=1e-9)
            assert samples.low <= found <= samples.high


def test_a_statistic_set_has_no_percentiles() -> None:
    samples = Samples.of(1.0)
    samples.merge(Samples(3, 9.0, 1.0, 6.0, opaque=True))
    assert (samples.count, samples.total, samples.high) == (4, 10.0, 6.0)
    assert statistic("p90")(samples) is None


@pytest.mark.parametrize(
    ("name", "message"), [("tm90", "not supported by localcloud"), ("IQM", "not supported"), ("p101", "p101"), ("Median", "Median")]
)
def test_other_statistics_are_refused(name: str, message: str) -> None:
    with pytest.raises(ServiceError, match=message):
        statistic(name)


def test_seconds_become_minutes_and_minutes_are_forgotten(store: MetricStore, clock: Clock) -> None:
    for second in range(120):
        store.add(LATENCY, float(second), "Microseconds", at=NOW - 120 + second)
    by_second = store.periods(LATENCY, NOW - 120, NOW, 1)
    assert {number: samples.low for number, samples in by_second.items()} == {second: float(second) for second in range(120)}
    by_minute = {number: samples.total for number, samples in store.periods(LATENCY, NOW - 120, NOW, 60).items()}
    clock.now += FINE_SECONDS + 61
    store.add(LATENCY, 1.0, "Microseconds")
    assert {number: samples.total for number, samples in store.periods(LATENCY, NOW - 120, NOW, 60).items()} == by_minute
    assert set(store.periods(LATENCY, NOW - 120, NOW, 1)) == {0, 60}
    clock.now += KEPT_SECONDS
    store.add(Metric("other", "x"), 1.0, "None")
    assert store.metrics() == [Metric("other", "x")]


def test_memory_is_bounded_and_the_oldest_goes_first(store: MetricStore, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_SPANS", 50)
    for minute in range(100):
        store.add(LATENCY, float(minute), "Microseconds", at=NOW - 86_400 + 60 * minute)
    clock.now += 61
    store.add(LATENCY, 0.0, "Microseconds")
    kept = store.samples(LATENCY, NOW - 86_400, NOW - 600)
    assert kept is not None
    assert (kept.low, kept.high, kept.count) == (51.0, 99.0, 49)


def test_samples_survive_a_restart(tmp_path: Path, clock: Clock) -> None:
    before = MetricStore(Database(tmp_path / "db"), clock)
    for value in range(200):
        before.add(LATENCY, float(value), "Microseconds", at=NOW - value / 10)
    before.add(LATENCY, 7.0, "Microseconds", at=NOW - 5000)
    before.add_set(Metric("n", "m"), Samples(2, 3.0, 1.0, 2.0, opaque=True), "None")
    before.save()
    after = MetricStore(Database(tmp_path / "db"), clock)
    after.load()
    assert after.metrics() == before.metrics()
    for metric in before.metrics():
        assert after.periods(metric, NOW - 6000, NOW + 60, 1) == before.periods(metric, NOW - 6000, NOW + 60, 1)
    assert after.unit(LATENCY) == "Microseconds"


def test_units_can_be_told_apart(store: MetricStore) -> None:
    store.add(LATENCY, 1.0, "Microseconds")
    store.add(LATENCY, 5.0, "Seconds")
    both, seconds = store.samples(LATENCY, NOW, NOW + 1), store.samples(LATENCY, NOW, NOW + 1, "Seconds")
    assert both is not None
    assert seconds is not None
    assert (both.count, seconds.total) == (2, 5.0)
    assert store.unit(LATENCY) is None
