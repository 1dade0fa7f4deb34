"""steps/baseline.py: the baseline files have Model Monitor's shape and the right numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from baseline import constraints, kll_sketch, statistics

FEATURES = {"red_mean": np.array([1.0, 2.0, 3.0, 10.0]), "width": np.array([32.0, 32.0, 32.0, 32.0])}
LABELS = ["a", "b", "b", "b"]


def test_statistics_have_the_documented_shape() -> None:
    document = statistics(FEATURES, LABELS)
    assert document["version"] == 0.0
    assert document["dataset"] == {"item_count": 4}
    red, width, label = document["features"]
    assert (red["name"], red["inferred_type"]) == ("red_mean", "Fractional")
    numbers = red["numerical_statistics"]
    assert numbers["common"] == {"num_present": 4, "num_missing": 0}
    assert (numbers["mean"], numbers["sum"], numbers["min"], numbers["max"]) == (4.0, 16.0, 1.0, 10.0)
    assert numbers["std_dev"] == pytest.approx(np.sqrt(12.5))
    kll = numbers["distribution"]["kll"]
    assert len(kll["buckets"]) == 10
    assert [bucket["count"] for bucket in kll["buckets"]] == [1, 1, 1, 0, 0, 0, 0, 0, 0, 1]
    assert (kll["buckets"][0]["lower_bound"], kll["buckets"][-1]["upper_bound"]) == (1.0, 10.0)
    assert kll["sketch"] == {"parameters": {"c": 0.64, "k": 2048.0}, "data": [[1.0, 2.0, 3.0, 10.0]]}
    assert width["inferred_type"] == "Integral"
    assert sum(bucket["count"] for bucket in width["numerical_statistics"]["distribution"]["kll"]["buckets"]) == 4
    assert label["string_statistics"] == {
        "common": {"num_present": 4, "num_missing": 0},
        "distinct_count": 2.0,
        "distribution": {"categorical": {"buckets": [{"value": "a", "count": 1}, {"value": "b", "count": 3}]}},
    }


def test_constraints_have_the_documented_shape() -> None:
    document = constraints(FEATURES, LABELS)
    assert [feature["name"] for feature in document["features"]] == ["red_mean", "width", "label"]
    assert document["features"][0] == {
        "name": "red_mean",
        "inferred_type": "Fractional",
        "completeness": 1.0,
        "num_constraints": {"is_non_negative": True},
    }
    assert document["features"][2]["string_constraints"] == {"domains": ["a", "b"]}
    assert document["monitoring_config"]["distribution_constraints"] == {
        "perform_comparison": "Enabled",
        "comparison_threshold": 0.1,
        "comparison_method": "Robust",
        "categorical_comparison_threshold": 0.1,
        "categorical_drift_method": "LInfinity",
    }


@given(values=hnp.arrays(np.float64, st.integers(1, 300), elements=st.floats(0, 255)), k=st.integers(4, 64))
def test_a_sketch_weighs_as_much_as_its_values_and_is_small(values: np.ndarray, k: int) -> None:
    levels = kll_sketch(values, k)
    assert sum(len(level) * 2**height for height, level in enumerate(levels)) == len(values)
    assert len(levels[-1]) <= k
    assert all(len(level) <= 1 for level in levels[:-1])
    assert {value for level in levels for value in level} <= set(values.tolist())


def test_a_sketch_keeps_the_quantiles() -> None:
    values = np.random.default_rng(0).normal(100, 20, 50_000)
    weighted = sorted((value, 2**height) for height, level in enumerate(kll_sketch(values)) for value in level)
    ranks = np.cumsum([weight for _, weight in weighted]) / len(values)
    for quantile in (0.01, 0.25, 0.5, 0.75, 0.99):
        estimate = weighted[int(np.searchsorted(ranks, quantile))][0]
        assert abs((values <= estimate).mean() - quantile) < 0.005
