"""Figures of a classifier from its probabilities on labelled images, and SageMaker's model-quality report. numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_Z_95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
CALIBRATION_BINS = 10
# Model Monitor's rule for "standard_deviation": five random subsets of 80 %, given only from 200 images on.
_SUBSETS, _SUBSET_SHARE, _SUBSET_MINIMUM = 5, 0.8, 200


@dataclass(frozen=True)
class Scored:
    """`probabilities`: [N, classes] in the order of `labels`; `targets`: true class indices [N]."""

    labels: tuple[str, ...]
    probabilities: Floats
    targets: Ints

    @property
    def predicted(self) -> Ints:
        """Predicted class indices [N]."""
        highest: Ints = self.probabilities.argmax(axis=1)
        return highest

    @property
    def confidence(self) -> Floats:
        """Probability of the predicted class [N]."""
        highest: Floats = self.probabilities.max(axis=1)
        return highest

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each prediction is right [N]."""
        right: npt.NDArray[np.bool_] = self.predicted == self.targets
        return right

    def subset(self, indices: Ints) -> Scored:
        """The images with these indices."""
        return Scored(self.labels, self.probabilities[indices], self.targets[indices])


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Images whose confidence lies in (low, high]."""

    low: float
    high: float
    count: int
    mean_confidence: float
    accuracy: float


def accuracy(scored: Scored) -> float:
    """Share of right predictions."""
    return float(scored.correct.mean())


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of a share (E. B. Wilson, 1927); good also near 1 and for few images, unlike the normal approximation."""
    share, z = right / total, _Z_95
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def confusion(scored: Scored) -> Ints:
    """Counts [true class, predicted class]."""
    matrix = np.zeros((len(scored.labels),) * 2, dtype=np.int64)
    np.add.at(matrix, (scored.targets, scored.predicted), 1)
    return matrix


def precision_recall(matrix: Ints) -> tuple[Floats, Floats]:
    """Per class; 0 where a class was never predicted or never occurs."""
    right = np.diag(matrix).astype(np.float64)
    precision = np.divide(right, matrix.sum(axis=0), out=np.zeros(len(right)), where=matrix.sum(axis=0) > 0)
    recall = np.divide(right, matrix.sum(axis=1), out=np.zeros(len(right)), where=matrix.sum(axis=1) > 0)
    return precision, recall


def f_score(precision: npt.ArrayLike, recall: npt.ArrayLike, beta: float) -> Floats:
    """(1 + b^2) p r / (b^2 p + r), 0 where both are 0."""
    p, r = np.atleast_1d(np.asarray(precision, dtype=np.float64)), np.atleast_1d(np.asarray(recall, dtype=np.float64))
    bottom = beta * beta * p + r
    return np.divide((1 + beta * beta) * p * r, bottom, out=np.zeros_like(bottom), where=bottom > 0)


def roc_curve(positive: npt.NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats, Floats]:
    """(false positive rates, true positive rates, thresholds), from (0, 0) to (1, 1), one point per distinct score. Needs both classes."""
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1)
    true, false = np.cumsum(hits)[last], np.cumsum(~hits)[last]
    return (
        np.concatenate([[0.0], false / max(1, int((~positive).sum()))]),
        np.concatenate([[0.0], true / max(1, int(positive.sum()))]),
        np.concatenate([[math.inf], sorted_scores[last]]),
    )


def roc_auc(positive: npt.NDArray[np.bool_], scores: Floats) -> float | None:
    """Area under the ROC curve: the chance that a positive scores above a negative (ties count half). None without both classes."""
    if positive.all() or not positive.any():
        return None
    false, true, _ = roc_curve(positive, scores)
    # The trapezoidal rule by hand: np.trapezoid came with NumPy 2, and SageMaker's PyTorch 2.6 container has NumPy 1.26.
    return float(np.sum(np.diff(false) * (true[1:] + true[:-1])) / 2)


def mean_roc_auc(scored: Scored) -> float | None:
    """Two classes: of the second. More: mean over the classes, each against the rest. None when a class does not occur."""
    classes = [1] if len(scored.labels) == 2 else range(len(scored.labels))
    areas = [roc_auc(scored.targets == index, scored.probabilities[:, index]) for index in classes]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if len(known) == len(areas) else None


def calibration_bins(scored: Scored) -> list[CalibrationBin]:
    """Images by confidence, in equally wide bins; empty bins are left out."""
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    numbers = np.clip(np.ceil(scored.confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    bins = []
    for number in np.unique(numbers):
        inside = numbers == number
        bins.append(
            CalibrationBin(
                float(edges[number]),
                float(edges[number + 1]),
                int(inside.sum()),
                float(scored.confidence[inside].mean()),
                float(scored.correct[inside].mean()),
            )
        )
    return bins


def expected_calibration_error(scored: Scored) -> float:
    """Mean distance between confidence and accuracy over the bins, weighted by their images (Naeini et al., 2015)."""
    total = len(scored.targets)
    return sum(item.count / total * abs(item.mean_confidence - item.accuracy) for item in calibration_bins(scored))


def at_threshold(scored: Scored, threshold: float) -> tuple[float, float | None]:
    """(coverage, accuracy): share of images whose confidence is at least `threshold`, and how many of those are right; None if none is."""
    accepted = scored.confidence >= threshold
    return float(accepted.mean()), float(scored.correct[accepted].mean()) if accepted.any() else None


def model_quality(scored: Scored) -> dict[str, Any]:
    """SageMaker's model-quality report: `binary_classification_metrics` (the second label is the positive one) for two classes,
    `multiclass_classification_metrics` for more. Keys and meaning:
    https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-model-quality-metrics.html
    """
    binary = len(scored.labels) == 2
    figures = _binary_figures if binary else _multiclass_figures
    values = figures(scored)
    deviations = _deviations(scored, figures)
    matrix = confusion(scored)
    names = ["0", "1"] if binary else list(scored.labels)
    report: dict[str, Any] = {
        "confusion_matrix": {true: {name: int(matrix[i, j]) for j, name in enumerate(names)} for i, true in enumerate(names)}
    }
    report |= {key: {"value": value, "standard_deviation": deviations.get(key, "NaN")} for key, value in values.items()}
    if binary:
        positive, scores = scored.targets == 1, scored.probabilities[:, 1]
        false, true, _ = roc_curve(positive, scores)
        report["receiver_operating_characteristic_curve"] = {"false_positive_rates": false.tolist(), "true_positive_rates": true.tolist()}
        precisions, recalls = _precision_recall_curve(positive, scores)
        report["precision_recall_curve"] = {"precisions": precisions.tolist(), "recalls": recalls.tolist()}
    return {"binary_classification_metrics" if binary else "multiclass_classification_metrics": report}


def _binary_figures(scored: Scored) -> dict[str, float]:
    matrix = confusion(scored)
    precision, recall = precision_recall(matrix)
    p, r = float(precision[1]), float(recall[1])
    # The best classifier that answers the same for every image: that of the more frequent class.
    constant = int(matrix.sum(axis=1).argmax())
    constant_precision = float(matrix[1].sum() / matrix.sum()) if constant == 1 else 0.0
    constant_recall = float(constant == 1)
    figures = {
        "recall": r,
        "precision": p,
        "accuracy": accuracy(scored),
        "recall_best_constant_classifier": constant_recall,
        "precision_best_constant_classifier": constant_precision,
        "accuracy_best_constant_classifier": float(matrix.sum(axis=1).max() / matrix.sum()),
        "true_positive_rate": r,
        "true_negative_rate": float(recall[0]),
        "false_positive_rate": 1 - float(recall[0]),
        "false_negative_rate": 1 - r,
    }
    area = roc_auc(scored.targets == 1, scored.probabilities[:, 1])
    if area is not None:
        figures["auc"] = area
    for name, beta in _BETAS.items():
        figures[name] = float(f_score(p, r, beta)[0])
        figures[f"{name}_best_constant_classifier"] = float(f_score(constant_precision, constant_recall, beta)[0])
    return figures


def _multiclass_figures(scored: Scored) -> dict[str, float]:
    matrix = confusion(scored)
    weights = matrix.sum(axis=1) / matrix.sum()
    constant = np.zeros_like(matrix)
    constant[:, int(weights.argmax())] = matrix.sum(axis=1)
    figures = {"accuracy": accuracy(scored), "accuracy_best_constant_classifier": float(weights.max())}
    for suffix, counts in (("", matrix), ("_best_constant_classifier", constant)):
        precision, recall = precision_recall(counts)
        figures[f"weighted_recall{suffix}"] = float(weights @ recall)
        figures[f"weighted_precision{suffix}"] = float(weights @ precision)
        for name, beta in _BETAS.items():
            figures[f"weighted_{name}{suffix}"] = float(weights @ f_score(precision, recall, beta))
    return figures


_BETAS: Mapping[str, float] = {"f0_5": 0.5, "f1": 1.0, "f2": 2.0}


def _deviations(scored: Scored, figures: Callable[[Scored], dict[str, float]]) -> dict[str, float]:
    total = len(scored.targets)
    if total < _SUBSET_MINIMUM:
        return {}
    random = np.random.default_rng(0)
    drawn = [figures(scored.subset(random.choice(total, int(total * _SUBSET_SHARE), replace=False))) for _ in range(_SUBSETS)]
    return {key: float(np.std([values[key] for values in drawn], ddof=1)) for key in drawn[0] if all(key in values for values in drawn)}


def _precision_recall_curve(positive: npt.NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats]:
    order: Sequence[int] = np.argsort(-scores, kind="stable").tolist()
    hits = positive[order]
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true = np.cumsum(hits)[last].astype(np.float64)
    return np.concatenate([[1.0], true / (last + 1)]), np.concatenate([[0.0], true / max(1, int(positive.sum()))])
