"""What CreatePipeline accepts and refuses, in whose words."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers_localcloud_pipelines import Json, compare, condition, definition, fail, get, join, json_get, processing, training
from localcloud.sagemaker.pipelines.definition import DefinitionError, parse_definition, parse_duration
from localcloud.sagemaker.pipelines.graph import ancestors, dependencies
from localcloud.sagemaker.pipelines.validation import validate

REPORT: dict[str, Any] = {"PropertyFiles": [{"PropertyFileName": "Report", "OutputName": "evaluation", "FilePath": "evaluation.json"}]}


def good() -> Json:
    """A definition with most of what there is."""
    gate = condition(
        "Gate",
        compare("GreaterThanOrEqualTo", json_get("Evaluate", "Report", "metrics.accuracy"), get("Parameters.Minimum")),
        {"Type": "Or", "Conditions": [{"Type": "Not", "Condition": {"Type": "In", "QueryValue": "a", "Values": ["b"]}}]},
        if_steps=[
            {
                "Name": "Register",
                "Type": "RegisterModel",
                "Arguments": {
                    "ModelPackageGroupName": "group",
                    "InferenceSpecification": {
                        "Containers": [{"Image": "image", "ModelDataUrl": get("Steps.Train.ModelArtifacts.S3ModelArtifacts")}],
                        "SupportedContentTypes": ["image/png"],
                        "SupportedResponseMIMETypes": ["application/json"],
                    },
                },
            },
            {
                "Name": "Model",
                "Type": "Model",
                "Arguments": {
                    "ExecutionRoleArn": "arn:aws:iam::123456789012:role/model",
                    "PrimaryContainer": {"Image": "image", "ModelDataUrl": get("Steps.Train.ModelArtifacts.S3ModelArtifacts")},
                },
            },
            {
                "Name": "Config",
                "Type": "EndpointConfig",
                "Arguments": {
                    "ProductionVariants": [
                        {
                            "VariantName": "A",
                            "ModelName": get("Steps.Model.ModelName"),
                            "InstanceType": "ml.m5.large",
                            "InitialInstanceCount": 1,
                        }
                    ]
                },
            },
            {
                "Name": "Endpoint",
                "Type": "Endpoint",
                "Arguments": {"EndpointName": "staging", "EndpointConfigName": get("Steps.Config.EndpointConfigName")},
            },
            {
                "Name": "Notify",
                "Type": "Lambda",
                "FunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:f",
                "Arguments": {"endpoint": get("Steps.Endpoint.EndpointArn")},
                "OutputParameters": [{"OutputName": "answer", "OutputType": "Integer"}],
            },
            {
                "Name": "Ask",
                "Type": "Callback",
                "SqsQueueUrl": "http://127.0.0.1/123456789012/q",
                "Arguments": {"n": get("Steps.Notify.OutputParameters['answer']")},
                "OutputParameters": [],
            },
        ],
        else_steps=[
            fail("Missed", join("accuracy ", json_get("Evaluate", "Report", "metrics.accuracy"), " outcome ", get("Steps.Gate.Outcome")))
        ],
        DisplayName="Quality gate",
        Description="Good enough?",
    )
    document = definition(
        processing("Prepare", {"raw": get("Parameters.Data")}, ["train"], CacheConfig={"Enabled": True, "ExpireAfter": "30d"}),
        training(
            "Train",
            {"train": get("Steps.Prepare.ProcessingOutputConfig.Outputs['train'].S3Output.S3Uri")},
            {"epochs": join(get("Parameters.Epochs"))},
            RetryPolicies=[{"ExceptionType": ["SageMaker.CAPACITY_ERROR"], "IntervalSeconds": 1, "BackoffRate": 2.0, "MaxAttempts": 3}],
        ),
        processing("Evaluate", {"model": get("Steps.Train.ModelArtifacts.S3ModelArtifacts")}, ["evaluation"], **REPORT),
        gate,
        parameters=[
            {"Name": "Data", "Type": "String"},
            {"Name": "Epochs", "Type": "Integer", "DefaultValue": 10},
            {"Name": "Minimum", "Type": "Float", "DefaultValue": 0.9},
            {"Name": "Status", "Type": "String", "DefaultValue": "a", "EnumValues": ["a", "b"]},
            {"Name": "Fast", "Type": "Boolean", "DefaultValue": False},
        ],
    )
    document["PipelineExperimentConfig"] = {
        "ExperimentName": get("Execution.PipelineName"),
        "TrialName": get("Execution.PipelineExecutionId"),
    }
    return document


def refused(document: Any) -> str:
    with pytest.raises(DefinitionError) as error:
        validate(parse_definition(document if isinstance(document, str) else json.dumps(document)))
    return str(error.value)


def test_a_definition_with_all_kinds_of_steps_is_accepted() -> None:
    parsed = parse_definition(json.dumps(good()))
    validate(parsed)
    assert list(parsed.steps) == [
        "Prepare",
        "Train",
        "Evaluate",
        "Gate",
        "Register",
        "Model",
        "Config",
        "Endpoint",
        "Notify",
        "Ask",
        "Missed",
    ]
    graph = dependencies(parsed)
    assert graph["Train"] == {"Prepare"}
    assert graph["Gate"] == {"Evaluate"}
    assert graph["Register"] == {"Train", "Gate"}
    assert graph["Missed"] == {"Evaluate", "Gate"}
    assert ancestors(graph, ["Endpoint"]) == {"Config", "Model", "Train", "Prepare", "Gate", "Evaluate"}
    assert parsed.steps["Prepare"].cache is not None
    assert parsed.steps["Prepare"].cache.expire_after == timedelta(days=30)


def step(document: Json, name: str) -> Json:
    """Return a step of a document, wherever it is."""
    queue = list(document["Steps"])
    while queue:
        found: Json = queue.pop()
        if found["Name"] == name:
            return found
        queue += found["Arguments"].get("IfSteps", []) + found["Arguments"].get("ElseSteps", [])
    raise AssertionError(name)


def arguments(name: str, *path: Any, value: Any) -> Callable[[Json], None]:
    """Return a change that sets something in a step's arguments."""

    def change(document: Json) -> None:
        place = step(document, name)["Arguments"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def member(name: str, key: str, value: Any) -> Callable[[Json], None]:
    """Return a change that sets a member of a step."""
    return lambda document: step(document, name).__setitem__(key, value)


CHANGES: list[tuple[Callable[[Json], None], str]] = [
    # AWS's own words, as people have met them
    (arguments("Prepare", "AppSpecification", value="x"), "Unable to parse pipeline definition. Expecting start of Json Object."),
    (arguments("Prepare", "ProcessingInputs", value={}), "Unable to parse pipeline definition. Expecting start of Json Array."),
    (
        arguments("Register", "CertifyForMarketplace", value=False),
        "Unable to parse pipeline definition. Unknown Argument member 'CertifyForMarketplace'.",
    ),
    (arguments("Model", "PrimaryContainer", "Nothing", value=1), "Unable to parse pipeline definition. Unknown Argument member 'Nothing'."),
    (
        arguments("Prepare", "ProcessingInputs", 0, "S3Input", "S3InputMode", value="FastFile"),
        "Unable to parse pipeline definition. Model Validation failed: Value 'FastFile' for 'ProcessingS3InputMode' failed to satisfy enum value set: [Pipe, File]",
    ),
    (
        arguments("Prepare", "ProcessingJobName", value="x" * 91),
        f"Unable to parse pipeline definition. Model Validation failed: string '{'x' * 91}' with length=91 cannot be greater than max=63.0"
        " defined for ProcessingJobName.",
    ),
    (
        arguments("Gate", "Conditions", 0, value={"Type": "Not", "Expression": {}}),
        "Unable to parse pipeline definition. Cannot parse object, unknown property 'Expression'.",
    ),
    (
        arguments("Train", "HyperParameters", value={"epochs": get("Parameters.Epochs")}),
        "Cannot assign property reference [Parameters.Epochs] to argument of type [String].",
    ),
    (member("Ask", "DependsOn", ["Missed"]), "Unable to parse pipeline definition. Ask can not depends on Missed"),
    # what is known of the rest
    (
        arguments("Prepare", "ProcessingResources", "ClusterConfig", "InstanceCount", value=get("Parameters.Data")),
        "to argument of type [Integer]",
    ),
    (
        arguments("Prepare", "ProcessingResources", "ClusterConfig", "InstanceCount", value="1"),
        "Expecting a Integer for ProcessingInstanceCount",
    ),
    (arguments("Prepare", "ProcessingResources", "ClusterConfig", "InstanceCount", value=0), "cannot be less than min=1.0"),
    (arguments("Prepare", "AppSpecification", value={}), "Missing required key 'ImageUri' in AppSpecification"),
    (
        arguments("Prepare", "AppSpecification", "ImageUri", value=get("Parameters.Nothing")),
        "Unknown property reference [Parameters.Nothing]",
    ),
    (
        arguments("Train", "InputDataConfig", 0, "DataSource", "S3DataSource", "S3Uri", value=get("Steps.Prepare.Nothing")),
        "Unknown property reference [Steps.Prepare.Nothing]",
    ),
    (
        arguments("Train", "InputDataConfig", 0, "DataSource", "S3DataSource", "S3Uri", value=get("Steps.Nobody.ModelName")),
        "Step 'Train' refers to unknown step 'Nobody'",
    ),
    (
        arguments("Train", "InputDataConfig", 0, "DataSource", "S3DataSource", "S3Uri", value=get("Execution.Nothing")),
        "Unknown property reference [Execution.Nothing]",
    ),
    (
        arguments("Model", "PrimaryContainer", "ModelDataUrl", value=get("Steps.Evaluate.PropertyFiles.Report")),
        "can only be used in Std:JsonGet",
    ),
    (
        arguments("Train", "HyperParameters", value={"name": get("Execution.ProcessingJobName")}),
        "can only be used in a Processing step, not in 'Train'",
    ),
    (arguments("Endpoint", "DeploymentConfig", value={}), "Unknown Argument member 'DeploymentConfig'"),
    (member("Ask", "SqsQueueUrl", get("Steps.Notify.OutputParameters['answer']")), "to argument of type [String]"),
    (
        member("Ask", "SqsQueueUrl", get("Steps.Notify.OutputParameters['other']")),
        "Unknown property reference [Steps.Notify.OutputParameters.other]",
    ),
    (arguments("Missed", "ErrorMessage", value=5), "Expecting a String for 'ErrorMessage'"),
    (arguments("Missed", "Message", value="x"), "Unknown Argument member 'Message'"),
    (arguments("Gate", "Conditions", value=[]), "Condition step 'Gate' needs at least one condition"),
    (
        arguments("Gate", "Conditions", 0, "LeftValue", value=json_get("Evaluate", "Other", "x")),
        "Property file 'Other' is not defined in step 'Evaluate'",
    ),
    (arguments("Gate", "Conditions", 0, "LeftValue", value=json_get("Evaluate", "Report", "a[*]")), "Invalid path 'a[*]'"),
    (arguments("Gate", "Conditions", 0, "LeftValue", value=get("Steps.Prepare.ProcessingOutputConfig")), "which is no single value"),
    (arguments("Gate", "Conditions", 0, "LeftValue", value=None), "compares texts, numbers and booleans only"),
    (
        arguments("Evaluate", "ProcessingOutputConfig", "Outputs", value=[]),
        "Processing output name 'evaluation' defined in property file 'Report' not found",
    ),
    (member("Train", "DependsOn", ["Nobody"]), "Step 'Train' refers to unknown step 'Nobody'"),
    (member("Prepare", "DependsOn", ["Evaluate"]), "Cycle detected in pipeline step graph"),
    (
        member("Train", "DependsOn", [{"Step": "Prepare", "Trigger": "Failed"}]),
        "The trigger 'Failed' in DependsOn of step 'Train' is not supported by localcloud",
    ),
    (member("Train", "Name", "Prepare"), "Duplicate step name 'Prepare'"),
    (member("Register", "Name", "Train"), "Duplicate step name 'Train'"),
    (member("Train", "Name", "a b"), "Step name 'a b' failed to satisfy regular expression pattern"),
    (member("Train", "Type", "Trainings"), "Unknown step type 'Trainings' of step 'Train'"),
    (member("Train", "Type", "Tuning"), "The step type Tuning (step 'Train') is not supported by localcloud"),
    (member("Train", "Nothing", 1), "Cannot parse object, unknown property 'Nothing'"),
    (member("Train", "PropertyFiles", []), "Cannot parse object, unknown property 'PropertyFiles'"),
    (member("Train", "CacheConfig", {"Enabled": "yes"}), "Expecting a Boolean for 'Enabled'"),
    (member("Train", "CacheConfig", {"Enabled": True, "ExpireAfter": "soon"}), "ExpireAfter 'soon' is not an ISO 8601 duration"),
    (member("Train", "RetryPolicies", [{"ExceptionType": ["Bad.LUCK"]}]), "Unknown ExceptionType 'Bad.LUCK'"),
    (
        member("Train", "RetryPolicies", [{"ExceptionType": ["Step.THROTTLING"], "MaxAttempts": 21}]),
        "MaxAttempts of a retry policy of step 'Train' must be a number between 0 and 20",
    ),
    (member("Endpoint", "RetryPolicies", [{"ExceptionType": ["Step.THROTTLING"]}]), "Retry policies are not supported for step 'Endpoint'"),
    (member("Notify", "FunctionArn", None), "Expecting a String for 'FunctionArn'"),
    (member("Notify", "OutputParameters", [{"OutputName": "x", "OutputType": "List"}]), "An output parameter of step 'Notify'"),
    (lambda document: document.update(Version="2021-01-01"), "Unsupported version '2021-01-01'"),
    (lambda document: document.update(Steps=[]), "A pipeline needs at least one step"),
    (lambda document: document.pop("Steps"), "Expecting start of Json Array"),
    (lambda document: document.update(Extra=1), "unknown property 'Extra'"),
    (
        lambda document: document.update(MlflowConfig={"MlflowExperimentName": "x"}),
        "MlflowConfig in a pipeline definition is not supported by localcloud",
    ),
    (
        lambda document: document["PipelineExperimentConfig"].update(TrialName=get("Steps.Train.TrainingJobName")),
        "may refer to parameters and execution variables only",
    ),
    (lambda document: document["Parameters"].append({"Name": "Data", "Type": "String"}), "Duplicate parameter name 'Data'"),
    (lambda document: document["Parameters"].append({"Name": "X", "Type": "Number"}), "Unknown type 'Number' of parameter 'X'"),
    (
        lambda document: document["Parameters"].append({"Name": "X", "Type": "Integer", "DefaultValue": "1"}),
        "Default value \"1\" of parameter 'X' is not of type Integer",
    ),
    (lambda document: document["Parameters"].append({"Name": "X", "Type": "Integer", "DefaultValue": True}), "is not of type Integer"),
    (
        lambda document: document["Parameters"].append({"Name": "X", "Type": "String", "DefaultValue": "c", "EnumValues": ["a"]}),
        "is not one of its EnumValues: [a]",
    ),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[message[-40:] for _, message in CHANGES])
def test_a_broken_definition_is_refused_by_name(change: Callable[[Json], Any], message: str) -> None:
    document = copy.deepcopy(good())
    change(document)
    assert message in refused(document)


@pytest.mark.parametrize("text", ["", "{", "not json", "[]", "5", "null", '"x"'])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    assert refused(text).startswith("Unable to parse pipeline definition. ")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
    st.data(),
)
def test_any_value_in_any_place_is_accepted_or_refused_by_name(value: Any, data: st.DataObject) -> None:
    document: Any = copy.deepcopy(good())
    place = document
    while True:
        choices = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(choices))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            place[key] = value
            break
        place = place[key]
    with contextlib.suppress(DefinitionError):
        validate(parse_definition(json.dumps(document)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("P30D", timedelta(days=30)),
        ("p30d", timedelta(days=30)),
        ("30d", timedelta(days=30)),
        ("PT1H", timedelta(hours=1)),
        ("T16m", timedelta(minutes=16)),
        ("30dT5h", timedelta(days=30, hours=5)),
        ("P4DT12H", timedelta(days=4, hours=12)),
        ("5y", timedelta(days=5 * 365)),
        ("P2W", timedelta(weeks=2)),
        ("P1M", timedelta(days=30)),
        ("PT0.5S", timedelta(seconds=0.5)),
        ("P99999999999D", timedelta.max),
    ],
)
def test_durations_as_aws_documents_them(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "P", "PT", "T", "1h", "30", "P-1D", "tomorrow", 5, None])
def test_what_is_no_duration_is_refused(text: Any) -> None:
    with pytest.raises(DefinitionError, match="is not an ISO 8601 duration"):
        parse_duration(text)
