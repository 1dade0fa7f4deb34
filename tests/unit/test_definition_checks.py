"""Checks of a rendered definition: each mistake that SageMaker would only report when the step runs is reported before."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from pipelines.definition_checks import check_definition, definition_problems
from pipelines.errors import DefinitionError

Document = dict[str, Any]


def get(reference: str) -> dict[str, str]:
    return {"Get": reference}


def join(*values: object, on: str = "/") -> dict[str, Any]:
    return {"Std:Join": {"On": on, "Values": list(values)}}


def processing(name: str, inputs: dict[str, object], **more: Any) -> dict[str, Any]:
    return {
        "Name": name,
        "Type": "Processing",
        "Arguments": {
            "ProcessingResources": {
                "ClusterConfig": {
                    "InstanceType": get("Parameters.InstanceType"),
                    "InstanceCount": get("Parameters.Count"),
                    "VolumeSizeInGB": 30,
                }
            },
            "AppSpecification": {
                "ImageUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/image:1",
                "ContainerEntrypoint": ["python3", "a.py"],
            },
            "RoleArn": "arn:aws:iam::123456789012:role/job",
            "ProcessingInputs": [
                {"InputName": key, "S3Input": {"S3Uri": uri, "LocalPath": "/opt/ml/processing/input", "S3DataType": "S3Prefix"}}
                for key, uri in inputs.items()
            ],
            "ProcessingOutputConfig": {
                "Outputs": [
                    {
                        "OutputName": "out",
                        "S3Output": {
                            "S3Uri": join("s3://bucket/runs", get("Execution.PipelineExecutionId")),
                            "LocalPath": "/opt/ml/processing/output",
                            "S3UploadMode": "EndOfJob",
                        },
                    }
                ]
            },
        },
        "CacheConfig": {"Enabled": True, "ExpireAfter": "P30D"},
        **more,
    }


def valid_document() -> Document:
    json_get = {"Std:JsonGet": {"PropertyFile": get("Steps.Second.PropertyFiles.Report"), "Path": "scones.accuracy"}}
    report = [{"PropertyFileName": "Report", "OutputName": "out", "FilePath": "report.json"}]
    return {
        "Version": "2020-12-01",
        "Parameters": [
            {"Name": "InstanceType", "Type": "String", "DefaultValue": "ml.m5.xlarge"},
            {"Name": "Count", "Type": "Integer", "DefaultValue": 1},
            {"Name": "Data", "Type": "String"},
            {"Name": "Minimum", "Type": "Float", "DefaultValue": 0.9},
        ],
        "Steps": [
            processing("First", {"raw": get("Parameters.Data")}),
            processing("Second", {"data": get("Steps.First.ProcessingOutputConfig.Outputs['out'].S3Output.S3Uri")}, PropertyFiles=report),
            {
                "Name": "Gate",
                "Type": "Condition",
                "Arguments": {
                    "Conditions": [{"Type": "GreaterThanOrEqualTo", "LeftValue": json_get, "RightValue": get("Parameters.Minimum")}],
                    "IfSteps": [
                        {
                            "Name": "Model",
                            "Type": "Model",
                            "Arguments": {
                                "ExecutionRoleArn": "arn:aws:iam::123456789012:role/model",
                                "PrimaryContainer": {
                                    "Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/image:1",
                                    "ModelDataUrl": "s3://bucket/model.tar.gz",
                                },
                            },
                        }
                    ],
                    "ElseSteps": [{"Name": "Missed", "Type": "Fail", "Arguments": {"ErrorMessage": join("accuracy ", json_get, on="")}}],
                },
            },
        ],
    }


def problems_after(change: Callable[[Document], object]) -> list[str]:
    document = copy.deepcopy(valid_document())
    change(document)
    return definition_problems(json.dumps(document))


def arguments(document: Document, step: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = document["Steps"][step]["Arguments"]
    return found


def test_a_right_definition_has_no_problems() -> None:
    assert definition_problems(json.dumps(valid_document())) == []
    check_definition(json.dumps(valid_document()))


CHANGES: list[tuple[str, Callable[[Document], object]]] = [
    ("parameter Data is used but not declared; declared are InstanceType, Count, Minimum", lambda d: d["Parameters"].pop(2)),
    ("parameter Extra is declared but never used", lambda d: d["Parameters"].append({"Name": "Extra", "Type": "String"})),
    ("Execution.PipelineRunId is not an execution variable", lambda d: arguments(d).update(RoleArn=get("Execution.PipelineRunId"))),
    ("Step.First refers to neither Parameters, Execution nor Steps", lambda d: arguments(d).update(RoleArn=get("Step.First"))),
    ("refers to step Zeroth, which does not exist", lambda d: arguments(d).update(RoleArn=get("Steps.Zeroth.RoleArn"))),
    (
        "Steps.First.RoleArns is not a value of step First (DescribeProcessingJob)",
        lambda d: arguments(d, 1).update(RoleArn=get("Steps.First.RoleArns")),
    ),
    ("is not a value of step First", lambda d: arguments(d, 1).update(RoleArn=get("Steps.First.ProcessingOutputConfig.Outputs"))),
    (
        "step First has no output output; it has out",
        lambda d: arguments(d, 1).update(RoleArn=get("Steps.First.ProcessingOutputConfig.Outputs['output'].S3Output.S3Uri")),
    ),
    ("a step of type Condition has no property Result", lambda d: d["Steps"].append(processing("Last", {"a": get("Steps.Gate.Result")}))),
    ("DependsOn names step Nothing, which does not exist", lambda d: d["Steps"][0].update(DependsOn=["Nothing"])),
    ("steps wait for each other: First, Second, Gate, Model, Missed", lambda d: d["Steps"][0].update(DependsOn=["Second"])),
    ("step First is defined more than once", lambda d: d["Steps"][1].update(Name="First")),
    ("Steps.Second.PropertyFiles.Report does not exist", lambda d: d["Steps"][1].pop("PropertyFiles")),
    ("property file Report is in output gone", lambda d: d["Steps"][1]["PropertyFiles"][0].update(OutputName="gone")),
    ("type Lambda is not one this project uses", lambda d: d["Steps"][0].update(Type="Lambda")),
    ('CreateProcessingJob: Missing required parameter in input: "RoleArn"', lambda d: arguments(d).pop("RoleArn")),
    ('CreateProcessingJob: Unknown parameter in input: "Role"', lambda d: arguments(d).update(Role="x")),
    (
        "Invalid type for parameter ProcessingResources.ClusterConfig.InstanceCount",
        lambda d: d["Parameters"][1].update(Type="String", DefaultValue="1"),
    ),
    ("'ml.m5.huge' is not one of the", lambda d: d["Parameters"][0].update(DefaultValue="ml.m5.huge")),
    ("RoleArn: 'arn:aws:iam::12:role/job' does not match", lambda d: arguments(d).update(RoleArn="arn:aws:iam::12:role/job")),
    ("Environment.A: 5000 characters, at most", lambda d: arguments(d).update(Environment={"A": "x" * 5000})),
    ("InstanceCount: 101 is above 100", lambda d: d["Parameters"][1].update(DefaultValue=101)),
    (
        "Environment holds Execution.PipelineExecutionId, so the step could never be found in the cache",
        lambda d: arguments(d).update(Environment={"RUN": get("Execution.PipelineExecutionId")}),
    ),
    (
        "ProcessingInputs holds Execution.StartDateTime",
        lambda d: arguments(d)["ProcessingInputs"][0]["S3Input"].update(S3Uri=join("s3://bucket", get("Execution.StartDateTime"))),
    ),
    ("a pipeline variable was made into text", lambda d: arguments(d).update(Environment={"A": "s3://{'Get': 'Parameters.Data'}/x"})),
]


@pytest.mark.parametrize(("expected", "change"), CHANGES, ids=[expected[:50] for expected, _ in CHANGES])
def test_each_mistake_is_named(expected: str, change: Callable[[Document], object]) -> None:
    problems = problems_after(change)
    assert any(expected in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_a_step_that_is_not_cached_may_name_its_execution() -> None:
    def change(document: Document) -> None:
        arguments(document)["Environment"] = {"RUN": get("Execution.PipelineExecutionId")}
        document["Steps"][0].pop("CacheConfig")

    assert problems_after(change) == []


def test_text_that_is_not_json_and_the_first_of_several_problems() -> None:
    assert "not JSON" in definition_problems("{")[0]
    document = valid_document()
    document["Parameters"].append({"Name": "Extra", "Type": "String"})
    document["Steps"][0]["DependsOn"] = ["Nothing"]
    with pytest.raises(DefinitionError, match=r"step First: DependsOn names step Nothing, which does not exist \(and 1 more\)"):
        check_definition(json.dumps(document))
