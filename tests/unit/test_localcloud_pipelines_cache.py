"""Cache keys and why they differ; retry policies."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.sagemaker.pipelines.cache import cache_key, differences, digest_text
from localcloud.sagemaker.pipelines.definition import ExceptionType, RetryPolicy, StepType
from localcloud.sagemaker.pipelines.names import generated_name, prefixed_name
from localcloud.sagemaker.pipelines.retries import Retries, classify_code, classify_reason

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=8
)
keys = st.dictionaries(st.text(max_size=4), documents, max_size=4)


def shuffled(value: Any, data: st.DataObject) -> Any:
    """Return an equal value whose members come in another order."""
    if isinstance(value, dict):
        order = data.draw(st.permutations(list(value)))
        return {key: shuffled(value[key], data) for key in order}
    return [shuffled(item, data) for item in value] if isinstance(value, list) else value


@given(keys, st.data())
def test_a_key_does_not_depend_on_the_order_of_members_and_survives_json(key: dict[str, Any], data: st.DataObject) -> None:
    assert digest_text(shuffled(key, data)) == digest_text(key)
    assert digest_text(json.loads(json.dumps(key))) == digest_text(key)


@given(keys, keys)
def test_two_keys_are_equal_exactly_when_nothing_differs(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert (digest_text(first) == digest_text(second)) == (list(differences(first, second)) == [])
    assert list(differences(first, copy.deepcopy(first))) == []


TRAINING = {
    "AlgorithmSpecification": {"TrainingImage": "i"},
    "CheckpointConfig": {"S3Uri": "s3://b/c"},
    "DebugHookConfig": {"S3OutputPath": "s3://b/d"},
    "DebugRuleConfigurations": [],
    "Environment": {"A": "1"},
    "HyperParameters": {"epochs": "1"},
    "InputDataConfig": [{"ChannelName": "train"}],
}
TRAINING_REST = {"OutputDataConfig": {}, "ResourceConfig": {}, "RoleArn": "r", "StoppingCondition": {}, "Tags": [], "TrainingJobName": "n"}
PROCESSING = {"AppSpecification": {"ImageUri": "i"}, "Environment": {}, "ProcessingInputs": []}
PROCESSING_REST = {
    "ProcessingOutputConfig": {},
    "ProcessingResources": {},
    "RoleArn": "r",
    "StoppingCondition": {},
    "ProcessingJobName": "n",
}


@pytest.mark.parametrize(
    ("type_", "counts", "rest"),
    [
        (StepType.TRAINING, TRAINING, TRAINING_REST),
        (StepType.PROCESSING, PROCESSING, PROCESSING_REST),
        (StepType.ENDPOINT_CONFIG, TRAINING, {}),
    ],
)
def test_the_key_has_the_documented_attributes_and_no_others(type_: StepType, counts: dict[str, Any], rest: dict[str, Any]) -> None:
    assert cache_key(type_, counts | rest) == counts


@pytest.mark.parametrize(
    "type_", [StepType.MODEL, StepType.REGISTER_MODEL, StepType.CONDITION, StepType.FAIL, StepType.LAMBDA, StepType.CALLBACK]
)
def test_other_types_have_no_key(type_: StepType) -> None:
    assert cache_key(type_, TRAINING) is None


def test_a_difference_names_the_input_by_its_name() -> None:
    old = {
        "ProcessingInputs": [{"InputName": "code", "S3Input": {"S3Uri": "s3://a"}}, {"InputName": "raw", "S3Input": {"S3Uri": "s3://1"}}]
    }
    new = {
        "ProcessingInputs": [{"InputName": "code", "S3Input": {"S3Uri": "s3://a"}}, {"InputName": "raw", "S3Input": {"S3Uri": "s3://2"}}]
    }
    assert list(differences(old, new)) == ["ProcessingInputs.raw.S3Input.S3Uri: 's3://1' -> 's3://2'"]


def test_added_removed_and_reordered_members_are_told_apart() -> None:
    old = {"Environment": {"A": "1", "B": "2"}, "InputDataConfig": [{"ChannelName": "x"}, {"ChannelName": "y"}], "Args": ["a", "b"]}
    new = {"Environment": {"A": "1", "C": "3"}, "InputDataConfig": [{"ChannelName": "y"}, {"ChannelName": "x"}], "Args": ["a", "c"]}
    assert list(differences(old, new)) == [
        "Args[1]: 'b' -> 'c'",
        "Environment.B: removed ('2')",
        "Environment.C: added ('3')",
        "InputDataConfig: order ['x', 'y'] -> ['y', 'x']",
    ]


def policy(*types: ExceptionType, **members: Any) -> RetryPolicy:
    return RetryPolicy(frozenset(types), **members)


def delays(retries: Retries, exception: ExceptionType | None, count: int = 30) -> list[float]:
    found: list[float] = []
    clock = 0.0
    for _ in range(count):
        delay = retries.next_delay(exception, clock)
        if delay is None:
            break
        found.append(delay)
        clock += delay
    return found


def test_the_delay_grows_by_the_rate_until_the_attempts_are_used_up() -> None:
    retries = Retries([policy(ExceptionType.CAPACITY_ERROR, interval_seconds=3.0, backoff_rate=2.0, max_attempts=4)])
    assert delays(retries, ExceptionType.CAPACITY_ERROR) == [3, 6, 12, 24]


def test_a_policy_expires() -> None:
    retries = Retries([policy(ExceptionType.CAPACITY_ERROR, interval_seconds=10.0, backoff_rate=1.0, expire_after_min=0.5)])
    assert delays(retries, ExceptionType.CAPACITY_ERROR) == [10, 10, 10]


def test_without_a_policy_only_faults_and_throttling_are_retried() -> None:
    assert delays(Retries([]), ExceptionType.SERVICE_FAULT) == [1, 2]
    assert delays(Retries([]), ExceptionType.THROTTLING) == [1, 2]
    assert delays(Retries([]), ExceptionType.RESOURCE_LIMIT) == []
    assert delays(Retries([]), None) == []


def test_a_policy_overrides_the_default() -> None:
    assert delays(Retries([policy(ExceptionType.SERVICE_FAULT, max_attempts=0)]), ExceptionType.SERVICE_FAULT) == []
    assert delays(Retries([policy(ExceptionType.SERVICE_FAULT, max_attempts=0)]), ExceptionType.THROTTLING) == [1, 2]


@given(st.lists(st.sampled_from(list(ExceptionType)), max_size=30), st.integers(0, 5))
def test_a_policy_never_gives_more_attempts_than_it_says(exceptions: list[ExceptionType], attempts: int) -> None:
    retries = Retries([policy(*ExceptionType, max_attempts=attempts)])
    assert sum(retries.next_delay(exception, 0.0) is not None for exception in exceptions) == min(attempts, len(exceptions))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("ThrottlingException", ExceptionType.THROTTLING),
        ("InternalFailure", ExceptionType.SERVICE_FAULT),
        ("ResourceLimitExceeded", ExceptionType.RESOURCE_LIMIT),
        ("ValidationException", None),
    ],
)
def test_error_codes_by_exception_type(code: str, expected: ExceptionType | None) -> None:
    assert classify_code(code) is expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("InternalServerError: We encountered an internal error.", ExceptionType.JOB_INTERNAL_ERROR),
        ("CapacityError: Unable to provision requested ML compute capacity.", ExceptionType.CAPACITY_ERROR),
        ("ResourceLimitExceeded: no", ExceptionType.RESOURCE_LIMIT),
        ("AlgorithmError: See job logs for more information", None),
    ],
)
def test_failure_reasons_by_exception_type(reason: str, expected: ExceptionType | None) -> None:
    assert classify_reason(reason) is expected


@given(st.from_regex(r"[A-Za-z0-9\-_]{1,64}", fullmatch=True))
def test_names_of_jobs_have_awss_form_and_fit(step: str) -> None:
    name = generated_name("p4jn9xou8a8s", step)
    prefix, execution, rest = name.split("-", 2)
    assert (prefix, execution) == ("pipelines", "p4jn9xou8a8s")
    assert rest[:-11] == step[:20].replace("_", "-")
    assert len(name) <= 63


@given(st.from_regex(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", fullmatch=True))
def test_names_with_a_given_prefix_fit(prefix: str) -> None:
    name = prefixed_name(prefix, "p4jn9xou8a8s", 2)
    assert len(name) <= 63
    assert name.endswith("-2")
    assert "-p4jn9xou8a8s-" in name
    assert name.startswith(prefix[:30])
