"""What the training images look like in numbers, in the files SageMaker Model Monitor compares later data with.

`statistics.json` and `constraints.json` follow https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-byoc-statistics.html and
.../model-monitor-byoc-constraints.html. A "row" is an image; its features are channel means and standard deviations, brightness (0-255),
width and height (pixels of the file) and label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_INTEGRAL = frozenset({"width", "height"})
# Model Monitor's own container uses these KLL parameters and ten buckets.
_SKETCH_K = 2048
_SKETCH_C = 0.64
_BUCKETS = 10
_COMPARISON_THRESHOLD = 0.1


def statistics(features: Mapping[str, npt.NDArray[np.float64]], labels: Sequence[str]) -> dict[str, Any]:
    """The content of statistics.json. `features`: name -> one value per image, `labels`: one per image; at least one image."""
    return {
        "version": 0.0,
        "dataset": {"item_count": len(labels)},
        "features": [
            {"name": name, "inferred_type": _inferred_type(name), "numerical_statistics": _numerical(values)}
            for name, values in features.items()
        ]
        + [{"name": "label", "inferred_type": "String", "string_statistics": _categorical(labels)}],
    }


def constraints(features: Mapping[str, npt.NDArray[np.float64]], labels: Sequence[str]) -> dict[str, Any]:
    """The content of constraints.json: every feature present and not negative, every label a known class, distributions within Model Monitor's thresholds."""
    return {
        "version": 0.0,
        "features": [
            {"name": name, "inferred_type": _inferred_type(name), "completeness": 1.0, "num_constraints": {"is_non_negative": True}}
            for name in features
        ]
        + [{"name": "label", "inferred_type": "String", "completeness": 1.0, "string_constraints": {"domains": sorted(set(labels))}}],
        "monitoring_config": {
            "evaluate_constraints": "Enabled",
            "emit_metrics": "Enabled",
            "datatype_check_threshold": 1.0,
            "domain_content_threshold": 1.0,
            "distribution_constraints": {
                "perform_comparison": "Enabled",
                "comparison_threshold": _COMPARISON_THRESHOLD,
                "comparison_method": "Robust",
                "categorical_comparison_threshold": _COMPARISON_THRESHOLD,
                "categorical_drift_method": "LInfinity",
            },
        },
    }


def _inferred_type(name: str) -> str:
    return "Integral" if name in _INTEGRAL else "Fractional"


def _numerical(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    low, high = float(values.min()), float(values.max())
    # All values equal: one level has no width to cut into buckets, so numpy widens it.
    counts, edges = np.histogram(values, _BUCKETS, (low, high))
    buckets = [
        {"lower_bound": float(start), "upper_bound": float(end), "count": float(count)}
        for start, end, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    return {
        "common": {"num_present": len(values), "num_missing": 0},
        "mean": float(values.mean()),
        "sum": float(values.sum()),
        "std_dev": float(values.std()),
        "min": low,
        "max": high,
        "distribution": {
            "kll": {"buckets": buckets, "sketch": {"parameters": {"c": _SKETCH_C, "k": float(_SKETCH_K)}, "data": kll_sketch(values)}}
        },
    }


def kll_sketch(values: npt.NDArray[np.float64], k: int = _SKETCH_K) -> list[list[float]]:
    """A KLL quantile sketch (Z. Karnin, K. Lang, E. Liberty, 2016): lists of values, one in level h standing for 2^h of the originals.

    A level with more than `k` values keeps every second of its sorted values one level up, beginning with the first and the second in turn,
    which makes it repeatable. With at most `k` values it holds them all. The weights add up to the number of values.
    """
    levels: list[list[float]] = []
    level = [float(value) for value in values]
    offset = 0
    while len(level) > k:
        level.sort()
        keep = level[-1:] if len(level) % 2 else []
        paired = level[: len(level) - len(keep)]
        levels.append(keep)
        level = paired[offset::2]
        offset = 1 - offset
    return [*levels, level]


def _categorical(labels: Sequence[str]) -> dict[str, Any]:
    counts = Counter(labels)
    return {
        "common": {"num_present": len(labels), "num_missing": 0},
        "distinct_count": float(len(counts)),
        "distribution": {"categorical": {"buckets": [{"value": label, "count": counts[label]} for label in sorted(counts)]}},
    }
