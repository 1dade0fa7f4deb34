"""FilterLowConfidenceInferences: at or above the threshold passes, below is LowConfidenceError."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers_aws import LambdaContext
from lambdas.common.errors import InvalidInputError, LowConfidenceError, WorkflowError
from lambdas.filter_low_confidence_inferences.handler import lambda_handler


@pytest.fixture(autouse=True, scope="module")
def default_threshold() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONFIDENCE_THRESHOLD", "0.93")
        yield


def run(inferences: object, **body: Any) -> Any:
    event = {"statusCode": 200, "body": {"inferences": inferences, "predicted_label": "bicycle", "s3_key": "a.png", **body}}
    return lambda_handler(event, LambdaContext())


def test_passes_the_body_with_the_threshold() -> None:
    assert run([0.95, 0.05]) == {
        "statusCode": 200,
        "body": {"inferences": [0.95, 0.05], "predicted_label": "bicycle", "s3_key": "a.png", "threshold": 0.93},
    }


def test_at_the_threshold_passes() -> None:
    assert run([0.07, 0.93])["body"]["threshold"] == 0.93
    assert run([1.0], threshold=1)["body"]["threshold"] == 1.0
    assert run([0.0], threshold=0)["body"]["threshold"] == 0.0


def test_below_is_low_confidence_with_both_figures() -> None:
    with pytest.raises(
        LowConfidenceError, match=r"^THRESHOLD_CONFIDENCE_NOT_MET: confidence 0\.9299 in 'bicycle' is below the threshold 0\.93"
    ):
        run([0.0701, 0.9299])


def test_a_difference_in_the_last_places_can_be_read() -> None:
    with pytest.raises(LowConfidenceError, match=r"0\.97 in .* 0\.970001;"):
        run([0.97, 0.03], threshold=0.970001)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.none() | st.floats(0, 1))
def test_exactly_the_highest_probability_decides(inferences: list[float], threshold: float | None) -> None:
    if max(inferences) >= (0.93 if threshold is None else threshold):
        assert run(inferences, threshold=threshold)["statusCode"] == 200
    else:
        with pytest.raises(LowConfidenceError):
            run(inferences, threshold=threshold)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda items: st.lists(items, max_size=3)), st.just(0.5))
def test_whatever_is_no_probability_is_never_accepted(inferences: object, threshold: float) -> None:
    try:
        accepted = run(inferences, threshold=threshold)["body"]["inferences"]
    except WorkflowError:
        return
    assert all(isinstance(item, float) and 0 <= item <= 1 for item in accepted)


@pytest.mark.parametrize("threshold", [1.5, -0.01, "high", "0.9", True, float("nan")])
def test_a_bad_threshold_accepts_nothing(threshold: object) -> None:
    with pytest.raises(InvalidInputError, match="'threshold' must"):
        run([1.0, 0.0], threshold=threshold)


@pytest.mark.parametrize("inferences", [None, [], "0.99", [None], [2.0]])
def test_without_probabilities_nothing_is_accepted(inferences: object) -> None:
    with pytest.raises(InvalidInputError, match="ImageClassification has to run first"):
        run(inferences)


@pytest.mark.parametrize("setting", [None, "", "high", "1.5", "nan"])
def test_a_function_without_its_setting_says_so(monkeypatch: pytest.MonkeyPatch, setting: str | None) -> None:
    if setting is None:
        monkeypatch.delenv("CONFIDENCE_THRESHOLD")
    else:
        monkeypatch.setenv("CONFIDENCE_THRESHOLD", setting)
    with pytest.raises(RuntimeError, match="CONFIDENCE_THRESHOLD"):
        run([1.0])
