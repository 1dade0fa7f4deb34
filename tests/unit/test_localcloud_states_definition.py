"""What CreateStateMachine accepts and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from localcloud.stepfunctions.definition import InvalidDefinition, compile_definition

LAMBDA = "arn:aws:states:::lambda:invoke"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:f"


def machine(**states: Any) -> str:
    return json.dumps({"StartAt": next(iter(states)), "States": states})


def refusal(text: str) -> str:
    with pytest.raises(InvalidDefinition) as caught:
        compile_definition(text)
    return str(caught.value)


PASS = {"Type": "Pass", "End": True}


def test_the_projects_own_workflow_is_valid() -> None:
    text = (Path(__file__).parents[2] / "stepfunctions" / "classify.asl.json").read_text()
    compiled = compile_definition(text)
    assert compiled.block.start_at == "SerializeImageData"
    assert compiled.timeout == 600


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "INVALID_JSON_DESCRIPTION"),
        ("[]", "SCHEMA_VALIDATION_FAILED: The definition must be a JSON object at /"),
        ("{}", "SCHEMA_VALIDATION_FAILED: These fields are required: [StartAt, States] at /"),
        (json.dumps({"StartAt": "B", "States": {"A": PASS}}), "MISSING_TRANSITION_TARGET: Missing 'Next' target: B at /StartAt"),
        (machine(A={"Type": "Pass", "Next": "B"}, C=PASS), "MISSING_TRANSITION_TARGET: Missing 'Next' target: B at /States/A/Next"),
        (machine(A=PASS, B=PASS), 'MISSING_TRANSITION_TARGET: State "B" is not reachable. at /States/B'),
        (machine(A={"Type": "Pass", "Next": "A"}), "NO_TERMINAL_STATE"),
        (machine(A={"Type": "Pass"}), "A state must have a 'Next' or 'End: true' field at /States/A"),
        (machine(A={"Type": "Pass", "Next": "B", "End": True}, B=PASS), "either 'Next' or 'End'"),
        (machine(A={"Type": "Nap", "End": True}), "The value for the field 'Type' must be one of"),
        (machine(A=PASS | {"Resource": "x"}), 'The field "Resource" is not supported by Step Functions at /States/A/Resource'),
        (machine(A={"Type": "Task", "End": True}), "These fields are required: [Resource] at /States/A"),
        (machine(A={"Type": "Task", "Resource": "f", "End": True}), "Value is not a valid resource ARN at /States/A/Resource"),
        (machine(A={"Type": "Task", "Resource": LAMBDA, "Parameters": {}, "End": True}), 'The field "FunctionName" is required but was missing at /States/A/Parameters'),
        (machine(A={"Type": "Task", "Resource": LAMBDA, "Parameters": {"FunctionName": "f", "Foo": 1}, "End": True}), 'The field "Foo" is not supported by Step Functions'),
        (machine(A={"Type": "Task", "Resource": FUNCTION, "TimeoutSeconds": 0, "End": True}), "'TimeoutSeconds' must be an integer between 1 and 99999999"),
        (machine(A={"Type": "Task", "Resource": FUNCTION, "TimeoutSeconds": 5, "HeartbeatSeconds": 5, "End": True}), "'HeartbeatSeconds' must be smaller"),
        (machine(A=PASS | {"InputPath": "x"}), "The value for the field 'InputPath' must be a valid JSONPath"),
        (machine(A=PASS | {"Parameters": {"x.$": "$.["}}), "at /States/A/Parameters/x.$"),
        (machine(A=PASS | {"ResultPath": "$.a[*]"}), "must be a valid Reference Path"),
        (machine(A={"Type": "Wait", "End": True}), "exactly one of 'Seconds', 'Timestamp'"),
        (machine(A={"Type": "Wait", "Timestamp": "soon", "End": True}), "must be a valid ISO 8601 timestamp"),
        (machine(A={"Type": "Choice", "Choices": []}), "These fields are required: [Choices]"),
        (machine(A={"Type": "Choice", "Choices": [{"Variable": "$.x", "IsNull": True}]}, B=PASS), "These fields are required: [Next]"),
        (machine(A={"Type": "Choice", "Choices": [{"Variable": "$.x", "Like": 1, "Next": "B"}]}, B=PASS), 'The field "Like" is not supported'),
        (machine(A={"Type": "Fail", "Error": "x", "ErrorPath": "$.x"}), "may have either 'Error' or 'ErrorPath'"),
        (machine(A={"Type": "Parallel", "Branches": [], "End": True}), "These fields are required: [Branches]"),
        (machine(A={"Type": "Map", "End": True}), "These fields are required: [ItemProcessor]"),
        (machine(A={"Type": "Task", "Resource": FUNCTION, "Retry": [{"MaxAttempts": 1}], "End": True}), "These fields are required: [ErrorEquals] at /States/A/Retry[0]"),
        (machine(A={"Type": "Task", "Resource": FUNCTION, "Retry": [{"ErrorEquals": ["States.ALL", "X"]}], "End": True}), "'States.ALL' must be the only element"),
        (machine(A={"Type": "Task", "Resource": FUNCTION, "Retry": [{"ErrorEquals": ["States.ALL"]}, {"ErrorEquals": ["X"]}], "End": True}), "in the last entry"),
        (machine(A={"Type": "Task", "Resource": FUNCTION, "Retry": [{"ErrorEquals": ["X"], "BackoffRate": 0.5}], "End": True}), "'BackoffRate' is not valid"),
        (machine(A={"Type": "Task", "Resource": FUNCTION, "Catch": [{"ErrorEquals": ["X"]}], "End": True}), "These fields are required: [Next] at /States/A/Catch[0]"),
        (machine(A=PASS | {"Arguments": {}}), 'The field "Arguments" is not supported by Step Functions'),
        (machine(A={"Type": "Pass", "QueryLanguage": "JSONata", "ResultPath": "$.x", "End": True}), "when using 'JSONata'"),
        (machine(A={"Type": "Pass", "QueryLanguage": "JSONata", "Output": "{% ( %}", "End": True}), "The JSONata expression '(' specified for the field 'Output' is not valid"),
        (machine(A={"Type": "Pass", "Assign": {"states": 1}, "End": True}), "'states' is reserved"),
        (json.dumps({"StartAt": "A", "States": {"A": PASS}, "Timeout": 1}), 'The field "Timeout" is not supported by Step Functions at /Timeout'),
        (json.dumps({"StartAt": "A", "QueryLanguage": "JSONata", "States": {"A": PASS | {"QueryLanguage": "JSONPath"}}}), "can not be 'JSONPath'"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_its_place(text: str, message: str) -> None:
    assert message in refusal(text)


@pytest.mark.parametrize(
    "state",
    [
        {"Type": "Task", "Resource": "arn:aws:states:::dynamodb:getItem", "Parameters": {}, "End": True},
        {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken", "Parameters": {"FunctionName": "f"}, "End": True},
        {"Type": "Task", "Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync", "Parameters": {}, "End": True},
        {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:dynamodb:getItem", "Parameters": {}, "End": True},
        {"Type": "Task", "Resource": "arn:aws:states:us-east-1:123456789012:activity:a", "End": True},
        {"Type": "Task", "Resource": FUNCTION, "Credentials": {"RoleArn": "x"}, "End": True},
        {"Type": "Map", "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED"}, "StartAt": "B", "States": {"B": PASS}}, "End": True},
        {"Type": "Map", "ItemBatcher": {}, "ItemProcessor": {"StartAt": "B", "States": {"B": PASS}}, "End": True},
        {"Type": "Map", "ToleratedFailureCount": 1, "ItemProcessor": {"StartAt": "B", "States": {"B": PASS}}, "End": True},
    ],
)
def test_what_is_not_played_is_refused_at_create(state: dict[str, Any]) -> None:
    assert "not supported by localcloud" in refusal(machine(A=state))


def test_a_task_of_an_sdk_is_checked_against_the_services_api() -> None:
    state = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:s3:getObject",
        "Parameters": {"Bucket": "b", "Key.$": "$.k"},
        "End": True,
    }
    compile_definition(machine(A=state))
    assert 'The field "Key" is required but was missing' in refusal(machine(A=state | {"Parameters": {"Bucket": "b"}}))
    assert 'The field "Kee" is not supported' in refusal(machine(A=state | {"Parameters": {"Bucket": "b", "Key": "k", "Kee": 1}}))
    assert "is not recognized" in refusal(machine(A=state | {"Resource": "arn:aws:states:::aws-sdk:s3:eatObject"}))


def test_every_mistake_is_told_at_once() -> None:
    text = machine(A={"Type": "Pass", "Next": "X", "Foo": 1}, B={"Type": "Wait", "Seconds": -1, "End": True})
    with pytest.raises(InvalidDefinition) as caught:
        compile_definition(text)
    assert {diagnostic.location for diagnostic in caught.value.diagnostics} == {
        "/States/A/Next",
        "/States/A/Foo",
        "/States/B",
        "/States/B/Seconds",
    }


def test_state_names_are_unique_also_in_branches() -> None:
    branch = {"StartAt": "A", "States": {"A": PASS}}
    assert "State names must be unique" in refusal(machine(A={"Type": "Parallel", "Branches": [branch], "End": True}))
