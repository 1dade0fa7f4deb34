"""The figures of an evaluation, against scikit-learn and worked examples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import cross_entropy, fit_temperature, softmax
from quality import (
    Scored,
    at_threshold,
    calibration_bins,
    confusion,
    expected_calibration_error,
    mean_roc_auc,
    model_quality,
    precision_recall,
    roc_auc,
    wilson_interval,
)


@pytest.fixture(scope="module")
def reference() -> Any:
    """scikit-learn's figures. Imported here because it takes two seconds, and each of pytest's workers imports every file."""
    import sklearn.metrics

    return sklearn.metrics


def scored(classes: int, count: int = 300, seed: int = 0) -> Scored:
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, count)
    logits = random.normal(size=(count, classes)) + 1.2 * np.eye(classes)[targets]
    return Scored(tuple(f"label {index}" for index in range(classes)), softmax(logits), targets)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_confusion_precision_recall_and_auc_are_scikit_learns(classes: int, reference: Any) -> None:
    data = scored(classes)
    np.testing.assert_array_equal(confusion(data), reference.confusion_matrix(data.targets, data.predicted))
    precision, recall, _, _ = reference.precision_recall_fscore_support(data.targets, data.predicted)
    np.testing.assert_allclose(precision_recall(confusion(data)), [precision, recall])
    scores: Any = data.probabilities[:, 1] if classes == 2 else data.probabilities
    assert mean_roc_auc(data) == pytest.approx(reference.roc_auc_score(data.targets, scores, multi_class="ovr"))


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0])), min_size=2, max_size=40))
@settings(max_examples=60)
def test_auc_with_ties_is_scikit_learns_and_none_without_both_classes(reference: Any, pairs: list[tuple[bool, float]]) -> None:
    positive, scores = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    if positive.all() or not positive.any():
        assert roc_auc(positive, scores) is None
    else:
        assert roc_auc(positive, scores) == pytest.approx(reference.roc_auc_score(positive, scores))


def test_binary_report_has_model_monitors_keys_and_scikit_learns_values(reference: Any) -> None:
    data = scored(2)
    report = model_quality(data)["binary_classification_metrics"]
    values = {key: item["value"] for key, item in report.items() if "value" in item}
    assert values["precision"] == pytest.approx(reference.precision_score(data.targets, data.predicted))
    assert values["recall"] == values["true_positive_rate"] == pytest.approx(reference.recall_score(data.targets, data.predicted))
    assert values["accuracy"] == pytest.approx(reference.accuracy_score(data.targets, data.predicted))
    assert values["auc"] == pytest.approx(reference.roc_auc_score(data.targets, data.probabilities[:, 1]))
    for name, beta in (("f0_5", 0.5), ("f1", 1), ("f2", 2)):
        assert values[name] == pytest.approx(reference.fbeta_score(data.targets, data.predicted, beta=beta))
    assert values["true_negative_rate"] + values["false_positive_rate"] == pytest.approx(1)
    assert set(report) >= {"confusion_matrix", "receiver_operating_characteristic_curve", "precision_recall_curve"}
    matrix = reference.confusion_matrix(data.targets, data.predicted)
    assert report["confusion_matrix"] == {str(i): {str(j): matrix[i, j] for j in range(2)} for i in range(2)}
    constant = {key: value for key, value in values.items() if key.endswith("best_constant_classifier")}
    assert set(constant) == {f"{name}_best_constant_classifier" for name in ("recall", "precision", "accuracy", "f0_5", "f1", "f2")}


def test_multiclass_report_has_model_monitors_keys_and_scikit_learns_values(reference: Any) -> None:
    data = scored(3)
    report = model_quality(data)["multiclass_classification_metrics"]
    values = {key: item["value"] for key, item in report.items() if "value" in item}
    assert values["weighted_precision"] == pytest.approx(reference.precision_score(data.targets, data.predicted, average="weighted"))
    assert values["weighted_recall"] == pytest.approx(reference.recall_score(data.targets, data.predicted, average="weighted"))
    for name, beta in (("f0_5", 0.5), ("f1", 1), ("f2", 2)):
        expected = reference.fbeta_score(data.targets, data.predicted, beta=beta, average="weighted")
        assert values[f"weighted_{name}"] == pytest.approx(expected)
    most = int(np.bincount(data.targets).argmax())
    assert values["accuracy_best_constant_classifier"] == pytest.approx((data.targets == most).mean())
    assert report["confusion_matrix"]["label 0"]["label 2"] == int(((data.targets == 0) & (data.predicted == 2)).sum())


def test_standard_deviations_need_200_images() -> None:
    few, many = (model_quality(scored(2, count))["binary_classification_metrics"]["accuracy"] for count in (199, 400))
    assert few["standard_deviation"] == "NaN"
    # Of subsets of 80 %, so smaller than the standard error of the whole, but of its order.
    error = math.sqrt(many["value"] * (1 - many["value"]) / 400)
    assert 0.1 * error < many["standard_deviation"] < 1.5 * error


@pytest.mark.parametrize(
    ("right", "total", "expected"),
    [(97, 100, (0.9155, 0.9897)), (100, 100, (0.9630, 1.0)), (0, 10, (0.0, 0.2775)), (5, 10, (0.2366, 0.7634))],
)
def test_wilson_interval_of_published_examples(right: int, total: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(right, total) == pytest.approx(expected, abs=1e-4)


def test_calibration_error_of_a_worked_example() -> None:
    # Bin (0.8, 0.9]: two images, confidence 0.85, accuracy 0.5. Bin (0.5, 0.6]: two images, confidence 0.55, accuracy 1.
    probabilities = np.array([[0.85, 0.15], [0.85, 0.15], [0.55, 0.45], [0.45, 0.55]])
    data = Scored(("a", "b"), probabilities, np.array([0, 1, 0, 1]))
    assert [(item.count, item.accuracy) for item in calibration_bins(data)] == [(2, 1.0), (2, 0.5)]
    assert expected_calibration_error(data) == pytest.approx(0.5 * 0.45 + 0.5 * 0.35)


def test_the_threshold_includes_its_own_value() -> None:
    data = Scored(("a", "b"), np.array([[0.93, 0.07], [0.92, 0.08], [0.01, 0.99]]), np.array([0, 0, 0]))
    coverage, accuracy = at_threshold(data, 0.93)
    assert (coverage, accuracy) == pytest.approx((2 / 3, 0.5))
    assert at_threshold(data, 1.0) == (0.0, None)


def test_temperature_finds_back_the_scale_of_scores() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 3)) * 2
    probabilities = softmax(logits)
    targets = (probabilities.cumsum(1) > random.random((len(logits), 1))).argmax(1)
    assert fit_temperature(logits * 3, targets) == pytest.approx(3, rel=0.05)


def test_temperature_stays_finite_without_a_mistake_and_with_nothing_learnt() -> None:
    targets = np.array([0, 1] * 20)
    perfect = np.eye(2)[targets] * 4
    temperature = fit_temperature(perfect, targets)
    # As confident as 40 right answers of 40 allow, not more.
    assert softmax(perfect, temperature)[0, 0] == pytest.approx(41 / 42, abs=1e-6)
    assert fit_temperature(-perfect, targets) == 20.0


@given(st.integers(2, 5), st.integers(1, 40), st.integers(0, 1000))
@settings(max_examples=40)
def test_no_other_temperature_is_more_likely(classes: int, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits, targets = random.normal(size=(count, classes)) * 3, random.integers(0, classes, count)
    best = fit_temperature(logits, targets)
    certain = (count + 1) / (count + 2)

    def softened(temperature: float) -> float:
        each = [cross_entropy(logits, np.full(count, label), temperature) for label in range(classes)]
        return certain * cross_entropy(logits, targets, temperature) + (1 - certain) / (classes - 1) * (
            sum(each) - cross_entropy(logits, targets, temperature)
        )

    assert 0.05 <= best <= 20
    assert all(softened(best) <= softened(min(20, max(0.05, best * factor))) + 1e-9 for factor in (0.5, 0.9, 1.1, 2))
