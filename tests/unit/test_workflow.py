"""The classification workflow: its definition against the functions it calls, and whole executions of it."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cfnlint.api import lint_all

from lambdas.common import errors

ROOT = Path(__file__).parent.parent.parent
DEFINITION: dict[str, Any] = json.loads((ROOT / "stepfunctions" / "classify.asl.json").read_text())
STATES: dict[str, dict[str, Any]] = DEFINITION["States"]
TASKS = {name: state for name, state in STATES.items() if state["Type"] == "Task"}
FUNCTIONS = {
    "SerializeImageData": "serialize_image_data",
    "ImageClassification": "image_classification",
    "FilterLowConfidenceInferences": "filter_low_confidence_inferences",
}
# https://docs.aws.amazon.com/step-functions/latest/dg/sfn-best-practices.html, "Handling transient Lambda service exceptions"
TRANSIENT_LAMBDA_ERRORS = {
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
}
TIMEOUTS = {"States.Timeout", "Sandbox.Timedout"}
ERROR_CLASSES = {name: item for name, item in vars(errors).items() if inspect.isclass(item) and issubclass(item, errors.WorkflowError)}


def raised_by(function: str) -> set[str]:
    """Names of the workflow's errors in the `raise` statements of a function and of the shared modules that it imports."""
    todo, seen, raised = [ROOT / "lambdas" / function / "handler.py"], set(), set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lambdas.common"):
                modules = [node.module] if node.module != "lambdas.common" else [f"lambdas.common.{alias.name}" for alias in node.names]
                todo += [ROOT / f"{module.replace('.', '/')}.py" for module in modules if module]
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                raised.add(node.exc.func.id)
    return raised & set(ERROR_CLASSES)


def caught(state: dict[str, Any]) -> list[str]:
    return [name for catcher in state["Catch"] for name in catcher["ErrorEquals"]]


def retried(state: dict[str, Any]) -> set[str]:
    return {name for retrier in state["Retry"] for name in retrier["ErrorEquals"]}


def successors(state: dict[str, Any]) -> Iterator[str]:
    yield from [state["Next"]] if "Next" in state else []
    yield from (catcher["Next"] for catcher in state.get("Catch", []))


# ----------------------------------------------------------------------------------------------------------------- definition


def lint(definition: dict[str, Any]) -> list[str]:
    """What CloudFormation's linter finds wrong with a state machine's definition."""
    properties = {"RoleArn": "arn:aws:iam::123456789012:role/workflow", "Definition": definition}
    template = {"Resources": {"StateMachine": {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}}}
    return [f"{match.rule.id} {match.message}" for match in lint_all(json.dumps(template)) if match.rule.id.startswith("E")]


@pytest.mark.parametrize("path", sorted((ROOT / "stepfunctions").glob("*.asl.json")), ids=lambda path: path.name)
def test_every_definition_passes_the_linter(path: Path) -> None:
    assert lint(json.loads(path.read_text())) == []


@pytest.mark.parametrize("change", [{"Resource": None}, {"Retries": []}, {"TimeoutSeconds": "ten"}], ids=str)
def test_the_linter_sees_what_is_broken(change: dict[str, Any]) -> None:
    broken = json.loads(json.dumps(DEFINITION))
    broken["States"]["FilterLowConfidenceInferences"] |= change
    assert lint(broken)


def test_every_state_is_reachable_and_leads_to_an_end() -> None:
    reached, todo = set(), [DEFINITION["StartAt"]]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += successors(STATES[name])
    assert reached == set(STATES)
    for state in STATES.values():
        assert ("Next" in state) != (state.get("End", False) or state["Type"] in ("Fail", "Succeed"))


def test_every_task_has_a_timeout_retries_with_jitter_and_a_catch_for_everything() -> None:
    assert set(TASKS) == {*FUNCTIONS, "NeedsReview"}
    for state in TASKS.values():
        assert state["TimeoutSeconds"] < DEFINITION["TimeoutSeconds"]
        assert state["Catch"][-1]["ErrorEquals"] == ["States.ALL"]
        # A mistake is not cured by trying it again.
        assert "States.ALL" not in retried(state)
        for retrier in state["Retry"]:
            assert retrier["JitterStrategy"] == "FULL"
            assert retrier["BackoffRate"] > 1
            assert retrier["MaxDelaySeconds"] <= 10


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_errors_that_a_function_raises_are_exactly_those_caught_by_name(name: str) -> None:
    named = set(caught(TASKS[name])) & set(ERROR_CLASSES)
    assert named == raised_by(FUNCTIONS[name])
    unknown = set(caught(TASKS[name])) - set(ERROR_CLASSES) - TIMEOUTS - {"States.ALL"}
    assert not unknown


@pytest.mark.parametrize("name", FUNCTIONS)
def test_exactly_the_transient_errors_are_retried(name: str) -> None:
    transient = {error for error in raised_by(FUNCTIONS[name]) if issubclass(ERROR_CLASSES[error], errors.TransientError)}
    assert retried(TASKS[name]) == transient | TRANSIENT_LAMBDA_ERRORS | TIMEOUTS


def test_low_confidence_is_the_only_error_that_is_no_failure() -> None:
    for name in FUNCTIONS:
        for catcher in TASKS[name]["Catch"]:
            end = catcher["Next"]
            while "Next" in STATES[end]:
                end = STATES[end]["Next"]
            assert (STATES[end]["Type"] == "Fail") != ("LowConfidenceError" in catcher["ErrorEquals"])


# ----------------------------------------------------------------------------------------------------------------- executions

PHOTO = {"s3_bucket": "photos", "s3_key": "photo.png"}
DOWN = {"code": "ServiceUnavailable", "message": "", "status": 503}
CASES: dict[str, dict[str, Any]] = {
    "accepted": {"input": PHOTO},
    "at the threshold": {"input": PHOTO, "inferences": [0.07, 0.93]},
    "below the threshold": {"input": PHOTO, "inferences": [0.4, 0.6]},
    "own threshold below": {"input": PHOTO | {"threshold": 0.5}, "inferences": [0.4, 0.6]},
    "own threshold above": {"input": PHOTO | {"threshold": 0.99}},
    "object created": {"input": {"bucket": {"name": "photos"}, "object": {"key": "a photo+ü.png", "size": 8}}},
    "object created, encoded": {"input": {"bucket": {"name": "photos"}, "object": {"key": "a+photo%2B%C3%BC.png"}}},
    "odd key": {"input": PHOTO | {"s3_key": "a photo+ü.png"}},
    "large": {"input": PHOTO | {"s3_key": "large.png"}},
    "missing": {"input": PHOTO | {"s3_key": "missing.png"}},
    "forbidden": {"input": PHOTO | {"s3_key": "forbidden.png"}},
    "empty": {"input": PHOTO | {"s3_key": "empty.png"}},
    "30 MB": {"input": PHOTO | {"s3_key": "30mb.png"}},
    "text": {"input": PHOTO | {"s3_key": "text.png"}},
    "threshold 1.5": {"input": PHOTO | {"threshold": 1.5}},
    "threshold high": {"input": PHOTO | {"threshold": "high"}},
    "a list": {"input": [1]},
    "nothing": {"input": {}},
    "S3 down": {"input": PHOTO | {"s3_key": "unreachable.png"}},
    "endpoint down": {"input": PHOTO, "endpoint_errors": [DOWN]},
    "endpoint comes back": {"input": PHOTO, "endpoint_errors": [DOWN, DOWN, None]},
    "no endpoint": {"input": PHOTO, "endpoint_errors": [{"code": "ValidationError", "message": "Endpoint x not found.", "status": 400}]},
    "truncated": {
        "input": PHOTO,
        "endpoint_errors": [{"code": "ModelError", "status": 424, "OriginalStatusCode": 400, "OriginalMessage": "the image is truncated"}],
    },
    "crash": {"input": PHOTO, "broken": "image_classification"},
    "no queue": {"input": PHOTO, "inferences": [0.4, 0.6], "queue_suffix": "-deleted"},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All cases, run in one process of their own: what is patched for them must not meet other tests."""
    answer = tmp_path_factory.mktemp("workflow") / "results.json"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    command = [sys.executable, str(Path(__file__).parent / "helpers_workflow.py"), str(answer)]
    subprocess.run(command, input=json.dumps(CASES), text=True, env=environment, check=True, capture_output=True)
    results: dict[str, Any] = json.loads(answer.read_text())
    return results


def expect_result(**changes: Any) -> dict[str, Any]:
    return {
        "decision": "accepted",
        "predicted_label": "bicycle",
        "confidence": 0.97,
        "inferences": [0.97, 0.03],
        "labels": ["bicycle", "motorcycle"],
        "s3_bucket": "photos",
        "s3_key": "photo.png",
        "content_type": "image/png",
        "endpoint_name": "scones-production",
    } | changes


def result_of(run: dict[str, Any]) -> dict[str, Any]:
    """The execution's result but for its own ARN."""
    assert run["status"] == "SUCCEEDED", run
    output: dict[str, Any] = run["output"]
    assert output.pop("execution_arn").startswith("arn:aws:states:")
    return output


def test_accepted(results: dict[str, Any]) -> None:
    assert result_of(results["accepted"]) == expect_result(threshold=0.93)
    assert results["accepted"]["review"] == []


def test_at_the_threshold_is_accepted(results: dict[str, Any]) -> None:
    answer = result_of(results["at the threshold"])
    assert (answer["decision"], answer["predicted_label"], answer["confidence"]) == ("accepted", "motorcycle", 0.93)


def test_low_confidence_is_an_outcome_that_reaches_the_review_queue(results: dict[str, Any]) -> None:
    run = results["below the threshold"]
    assert run["review"] == [run["output"]]
    answer = result_of(run)
    assert answer.pop("reason").startswith("THRESHOLD_CONFIDENCE_NOT_MET: confidence 0.6 in 'motorcycle' is below the threshold 0.93")
    assert answer == expect_result(decision="needs_review", predicted_label="motorcycle", confidence=0.6, inferences=[0.4, 0.6])


def test_the_inputs_threshold_goes_before_the_default(results: dict[str, Any]) -> None:
    assert (results["own threshold below"]["output"]["decision"], results["own threshold below"]["output"]["threshold"]) == (
        "accepted",
        0.5,
    )
    assert results["own threshold above"]["output"]["decision"] == "needs_review"


@pytest.mark.parametrize("case", ["object created", "object created, encoded", "odd key"])
def test_keys_with_spaces_pluses_and_umlauts(results: dict[str, Any], case: str) -> None:
    assert result_of(results[case])["s3_key"] == "a photo+ü.png"


def test_a_photo_too_large_for_a_state_is_classified_all_the_same(results: dict[str, Any]) -> None:
    assert result_of(results["large"])["decision"] == "accepted"
    assert results["large"]["image_bytes"] == 300_008


@pytest.mark.parametrize(
    ("case", "error", "advice"),
    [
        ("missing", "ImageNotFoundError", "Check bucket and key"),
        ("forbidden", "ImageAccessDeniedError", "Grant the function's role s3:GetObject"),
        ("empty", "EmptyImageError", "Upload it again"),
        ("30 MB", "ImageTooLargeError", "Scale the image down"),
        ("text", "UnsupportedImageError", "Send PNG, JPEG or WebP"),
        ("threshold 1.5", "InvalidInputError", "must be a number from 0.0 to 1.0, for example 0.93; got 1.5"),
        ("threshold high", "InvalidInputError", "must be a number from 0.0 to 1.0, for example 0.93; got 'high'"),
        ("a list", "InvalidInputError", "must be a JSON object"),
        ("nothing", "InvalidInputError", "expected"),
        ("no endpoint", "EndpointNotFoundError", "Approve a model version"),
        ("truncated", "ModelRejectedImageError", "the image is truncated"),
        ("S3 down", "ImageStoreUnavailableError", "HTTP 500"),
        ("endpoint down", "EndpointUnavailableError", "HTTP 503"),
        ("no queue", "ReviewQueueUnavailableError", "Check that the queue exists"),
    ],
)
def test_a_failure_has_its_name_and_a_cause_that_says_what_to_do(results: dict[str, Any], case: str, error: str, advice: str) -> None:
    run = results[case]
    assert (run["status"], run["error"], run["output"]) == ("FAILED", error, None)
    assert advice in run["cause"]
    assert "stackTrace" not in run["cause"]
    assert run["review"] == []


def test_a_crash_fails_with_what_lambda_says(results: dict[str, Any]) -> None:
    assert (results["crash"]["status"], results["crash"]["error"]) == ("FAILED", "Runtime.ExitError")
    assert "Runtime exited" in results["crash"]["cause"]


def test_an_endpoint_that_comes_back_is_tried_again_with_backoff_and_jitter(results: dict[str, Any]) -> None:
    run = results["endpoint comes back"]
    assert result_of(run)["decision"] == "accepted"
    assert run["invocations"] == 3
    assert len(run["pauses"]) == 2


def test_retries_end_after_bounded_pauses(results: dict[str, Any]) -> None:
    run = results["endpoint down"]
    retrier = TASKS["ImageClassification"]["Retry"][0]
    assert run["invocations"] == 1 + retrier["MaxAttempts"]
    bounds = [
        min(retrier["IntervalSeconds"] * retrier["BackoffRate"] ** n, retrier["MaxDelaySeconds"]) for n in range(retrier["MaxAttempts"])
    ]
    assert all(0 <= pause <= bound for pause, bound in zip(run["pauses"], bounds, strict=True))


@pytest.mark.parametrize("case", ["no endpoint", "truncated"])
def test_what_trying_again_cannot_cure_is_not_retried(results: dict[str, Any], case: str) -> None:
    assert (results[case]["invocations"], results[case]["pauses"]) == (1, [])


def test_an_error_before_the_endpoint_costs_no_inference(results: dict[str, Any]) -> None:
    assert all(results[case]["invocations"] == 0 for case in ("missing", "empty", "30 MB", "text", "threshold 1.5", "threshold high"))
