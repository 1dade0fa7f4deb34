"""SageMaker Pipelines over HTTP, with jobs that really run."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from helpers_roles import mighty_role

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "pipelines-tests"
Json = dict[str, Any]

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": ["sagemaker.amazonaws.com", "lambda.amazonaws.com"]}, "Action": "sts:AssumeRole"}
    ],
}

PREPARE = """
import pathlib, sys
source, target, message = map(pathlib.Path, sys.argv[1:])
data = (source / "data.txt").read_text()
if data == "bad":
    message.parent.mkdir(parents=True, exist_ok=True)
    message.write_text("the data is bad")
    sys.exit(1)
(target / "data.txt").write_text(data.upper())
"""
EVALUATE = """
import json, pathlib, sys, tarfile
model, target = map(pathlib.Path, sys.argv[1:])
with tarfile.open(model / "model.tar.gz") as archive:
    accuracy = float(archive.extractfile("accuracy.txt").read())
report = {"metrics": {"accuracy": {"value": accuracy}}, "classes": ["a", "b"]}
(target / "evaluation.json").write_text(json.dumps(report))
"""
TRAIN = """
import json, pathlib, sys
parameters, train, model = map(pathlib.Path, sys.argv[1:])
assert (train / "data.txt").read_text() == "HELLO"
(model / "accuracy.txt").write_text(json.loads(parameters.read_text())["accuracy"])
"""
SLEEP = """
import time
print("asleep", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def cloud(region: Any) -> Any:
    """The region with a bucket, a role and the jobs' code."""
    set_up(region.client)
    return region


def set_up(client: Callable[[str], Any]) -> None:
    mighty_role(client("iam"), "job", TRUST)
    s3 = client("s3")
    s3.create_bucket(Bucket=BUCKET)
    for name, text in {"prepare": PREPARE, "evaluate": EVALUATE, "train": TRAIN, "sleep": SLEEP}.items():
        s3.put_object(Bucket=BUCKET, Key=f"code/{name}.py", Body=textwrap.dedent(text).encode())
    s3.put_object(Bucket=BUCKET, Key="raw/good/data.txt", Body=b"hello")
    s3.put_object(Bucket=BUCKET, Key="raw/bad/data.txt", Body=b"bad")


ROLE = "arn:aws:iam::123456789012:role/job"


def get(text: str) -> Json:
    return {"Get": text}


def output(name: str, step: str) -> Json:
    return {
        "OutputName": name,
        "S3Output": {
            "S3Uri": {"Std:Join": {"On": "/", "Values": [f"s3://{BUCKET}/runs", get("Execution.PipelineExecutionId"), step, name]}},
            "LocalPath": f"/opt/ml/processing/output/{name}",
            "S3UploadMode": "EndOfJob",
        },
    }


def processing(name: str, script: str, inputs: Json, outputs: list[str], *arguments: str, **members: Any) -> Json:
    """A cached Processing step; the script's arguments are the folders of its inputs and outputs, and what else is given."""
    sources = {"code": f"s3://{BUCKET}/code/", **inputs}
    folders = [f"/opt/ml/processing/input/{key}" for key in inputs] + [f"/opt/ml/processing/output/{key}" for key in outputs]
    return {
        "Name": name,
        "Type": "Processing",
        "Arguments": {
            "AppSpecification": {
                "ImageUri": "image",
                "ContainerEntrypoint": ["python3", f"/opt/ml/processing/input/code/{script}.py", *folders, *arguments],
            },
            "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30}},
            "RoleArn": ROLE,
            "ProcessingInputs": [
                {
                    "InputName": key,
                    "S3Input": {
                        "S3Uri": uri,
                        "LocalPath": f"/opt/ml/processing/input/{key}",
                        "S3DataType": "S3Prefix",
                        "S3InputMode": "File",
                    },
                }
                for key, uri in sources.items()
            ],
            "ProcessingOutputConfig": {"Outputs": [output(key, name) for key in outputs]},
        },
        "CacheConfig": {"Enabled": True, "ExpireAfter": "P30D"},
        **members,
    }


def full_definition() -> Json:
    """Prepare, train, evaluate, and a gate: register, model and endpoint configuration, or a Fail step."""
    train = {
        "Name": "Train",
        "Type": "Training",
        "DisplayName": "Train the model",
        "Description": "Writes the accuracy that it is told.",
        "Arguments": {
            "AlgorithmSpecification": {
                "TrainingImage": "image",
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/train.py"],
                "ContainerArguments": ["/opt/ml/input/config/hyperparameters.json", "/opt/ml/input/data/train", "/opt/ml/model"],
            },
            "HyperParameters": {"accuracy": {"Std:Join": {"On": "", "Values": [get("Parameters.Accuracy")]}}},
            "InputDataConfig": [
                {"ChannelName": channel, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}}
                for channel, uri in {
                    "train": get("Steps.Prepare.ProcessingOutputConfig.Outputs['train'].S3Output.S3Uri"),
                    "code": f"s3://{BUCKET}/code/",
                }.items()
            ],
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/models"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            "RoleArn": ROLE,
        },
        "CacheConfig": {"Enabled": True},
    }
    model_data = get("Steps.Train.ModelArtifacts.S3ModelArtifacts")
    accuracy = {"Std:JsonGet": {"PropertyFile": get("Steps.Evaluate.PropertyFiles.Report"), "Path": "metrics.accuracy.value"}}
    gate = {
        "Name": "Gate",
        "Type": "Condition",
        "Arguments": {
            "Conditions": [{"Type": "GreaterThanOrEqualTo", "LeftValue": accuracy, "RightValue": get("Parameters.Minimum")}],
            "IfSteps": [
                {
                    "Name": "Register",
                    "Type": "RegisterModel",
                    "Arguments": {
                        "ModelPackageGroupName": "pipelines-tests",
                        "ModelApprovalStatus": get("Parameters.Status"),
                        "InferenceSpecification": {
                            "Containers": [{"Image": "image", "ModelDataUrl": model_data}],
                            "SupportedContentTypes": ["text/csv"],
                            "SupportedResponseMIMETypes": ["text/csv"],
                        },
                        "CustomerMetadataProperties": {"accuracy": {"Std:Join": {"On": "", "Values": [accuracy]}}},
                    },
                },
                {
                    "Name": "Model",
                    "Type": "Model",
                    "Arguments": {"ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": "image", "ModelDataUrl": model_data}},
                },
                {
                    "Name": "Config",
                    "Type": "EndpointConfig",
                    "Arguments": {
                        "EndpointConfigName": "staging",
                        "ProductionVariants": [
                            {
                                "VariantName": "A",
                                "ModelName": get("Steps.Model.ModelName"),
                                "InstanceType": "ml.m5.large",
                                "InitialInstanceCount": 1,
                            }
                        ],
                    },
                },
            ],
            "ElseSteps": [
                {
                    "Name": "Missed",
                    "Type": "Fail",
                    "Arguments": {
                        "ErrorMessage": {"Std:Join": {"On": " ", "Values": ["accuracy", accuracy, "is below", get("Parameters.Minimum")]}}
                    },
                }
            ],
        },
    }
    return {
        "Version": "2020-12-01",
        "Metadata": {},
        "Parameters": [
            {"Name": "Data", "Type": "String", "DefaultValue": f"s3://{BUCKET}/raw/good"},
            {"Name": "Accuracy", "Type": "Float", "DefaultValue": 0.95},
            {"Name": "Minimum", "Type": "Float", "DefaultValue": 0.9},
            {
                "Name": "Status",
                "Type": "String",
                "DefaultValue": "PendingManualApproval",
                "EnumValues": ["PendingManualApproval", "Approved"],
            },
        ],
        "PipelineExperimentConfig": {"ExperimentName": get("Execution.PipelineName"), "TrialName": get("Execution.PipelineExecutionId")},
        "Steps": [
            processing("Prepare", "prepare", {"raw": get("Parameters.Data")}, ["train"], "/opt/ml/output/message"),
            train,
            processing(
                "Evaluate",
                "evaluate",
                {"model": model_data},
                ["evaluation"],
                PropertyFiles=[{"PropertyFileName": "Report", "OutputName": "evaluation", "FilePath": "evaluation.json"}],
            ),
            gate,
        ],
    }


def conditions_only(*names: str, parameters: list[Json] | None = None) -> Json:
    """A definition of steps that take no time, each after the one before."""
    steps = [
        {
            "Name": name,
            "Type": "Condition",
            "Arguments": {"Conditions": [{"Type": "Equals", "LeftValue": 1, "RightValue": 1}], "IfSteps": [], "ElseSteps": []},
            "DependsOn": [before] if before else [],
        }
        for name, before in zip(names, (None, *names), strict=False)
    ]
    return {"Version": "2020-12-01", "Parameters": parameters or [], "Steps": steps}


def sleeping() -> Json:
    return {"Version": "2020-12-01", "Steps": [processing("Sleep", "sleep", {}, [])]}


def create(client: Any, definition: Json, **members: Any) -> str:
    """Create a pipeline with a new name and return the name."""
    name = f"p-{uuid.uuid4().hex[:8]}"
    client.create_pipeline(PipelineName=name, RoleArn=ROLE, PipelineDefinition=json.dumps(definition), **members)
    return name


def start(client: Any, pipeline: str, parameters: Json | None = None, **members: Any) -> str:
    listed = [{"Name": name, "Value": str(value)} for name, value in (parameters or {}).items()]
    arn: str = client.start_pipeline_execution(PipelineName=pipeline, PipelineParameters=listed, **members)["PipelineExecutionArn"]
    return arn


def wait(client: Any, arn: str, poll: Callable[..., Any]) -> Json:
    """Return DescribePipelineExecution once the execution has ended."""

    def ended() -> Json | None:
        answer: Json = client.describe_pipeline_execution(PipelineExecutionArn=arn)
        return answer if answer["PipelineExecutionStatus"] not in ("Executing", "Stopping") else None

    answer: Json = poll(ended, seconds=60)
    return answer


def steps_of(client: Any, arn: str) -> dict[str, Json]:
    answer = client.list_pipeline_execution_steps(PipelineExecutionArn=arn, SortOrder="Ascending")
    return {step["StepName"]: step for step in answer["PipelineExecutionSteps"]}


def job_of(client: Any, step: Json) -> Json:
    """Describe a step's processing job. Its ARN is in lower case, its name as Pipelines made it."""
    arn = step["Metadata"]["ProcessingJob"]["Arn"]
    (found,) = client.list_processing_jobs(NameContains=arn.rpartition("-")[2])["ProcessingJobSummaries"]
    assert found["ProcessingJobArn"] == arn
    job: Json = client.describe_processing_job(ProcessingJobName=found["ProcessingJobName"])
    return job


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    """Return code and message of a call that is refused."""
    with pytest.raises(ClientError) as error:
        call()
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] < 500
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


@pytest.fixture(scope="module")
def client(cloud: Any) -> Any:
    return cloud.client("sagemaker")


@pytest.fixture(scope="module")
def full(client: Any) -> str:
    """The whole pipeline, made once."""
    return create(client, full_definition(), PipelineDescription="all of it", Tags=[{"Key": "team", "Value": "t"}])


@pytest.fixture
def first_run(client: Any, full: str, poll: Callable[..., Any]) -> str:
    """Its first execution, ended; made by the first test that needs it."""
    found = client.list_pipeline_executions(PipelineName=full, SortOrder="Ascending", MaxResults=1)["PipelineExecutionSummaries"]
    if found:
        earlier: str = found[0]["PipelineExecutionArn"]
        return earlier
    arn = start(client, full, PipelineExecutionDisplayName="first", PipelineExecutionDescription="the first run")
    wait(client, arn, poll)
    return arn


def test_a_pipeline_runs_its_jobs_and_registers_what_they_made(cloud: Any, client: Any, full: str, first_run: str) -> None:
    execution = client.describe_pipeline_execution(PipelineExecutionArn=first_run)
    steps = steps_of(client, first_run)
    assert execution["PipelineExecutionStatus"] == "Succeeded", steps
    assert execution["PipelineExecutionDisplayName"] == "first"
    assert execution["PipelineExperimentConfig"] == {"ExperimentName": full, "TrialName": first_run.rpartition("/")[2]}
    assert list(steps) == ["Prepare", "Train", "Evaluate", "Gate", "Register", "Model", "Config"]
    assert all(step["StepStatus"] == "Succeeded" and step["EndTime"] >= step["StartTime"] for step in steps.values())
    assert steps["Train"]["StepDisplayName"] == "Train the model"
    assert steps["Train"]["StepDescription"] == "Writes the accuracy that it is told."
    assert steps["Gate"]["Metadata"] == {"Condition": {"Outcome": "True"}}

    job = job_of(client, steps["Prepare"])
    assert job["ProcessingJobName"].startswith(f"pipelines-{first_run.rpartition('/')[2]}-Prepare-")
    uri = job["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"]
    assert uri == f"s3://{BUCKET}/runs/{first_run.rpartition('/')[2]}/Prepare/train"
    key = uri.removeprefix(f"s3://{BUCKET}/") + "/data.txt"
    assert cloud.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"HELLO"
    tags = {tag["Key"]: tag["Value"] for tag in client.list_tags(ResourceArn=job["ProcessingJobArn"])["Tags"]}
    assert tags == {"sagemaker:pipeline-execution-arn": first_run}

    package = client.describe_model_package(ModelPackageName=steps["Register"]["Metadata"]["RegisterModel"]["Arn"])
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    assert package["MetadataProperties"] == {"GeneratedBy": first_run}
    assert package["CustomerMetadataProperties"] == {"accuracy": "0.95"}
    (summary,) = client.list_endpoint_configs(NameContains=f"staging-{first_run.rpartition('/')[2]}-")["EndpointConfigs"]
    assert steps["Config"]["Metadata"] == {"EndpointConfig": {"Arn": summary["EndpointConfigArn"]}}
    config = client.describe_endpoint_config(EndpointConfigName=summary["EndpointConfigName"])
    model = client.describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
    assert steps["Model"]["Metadata"] == {"Model": {"Arn": model["ModelArn"]}}
    assert model["PrimaryContainer"]["ModelDataUrl"].startswith(f"s3://{BUCKET}/models/pipelines-")


def test_the_same_again_comes_from_the_cache(client: Any, full: str, first_run: str, poll: Callable[..., Any]) -> None:
    second = start(client, full)
    assert wait(client, second, poll)["PipelineExecutionStatus"] == "Succeeded"
    steps = steps_of(client, second)
    hits = {name for name, step in steps.items() if step.get("CacheHitResult") == {"SourcePipelineExecutionArn": first_run}}
    assert hits == {"Prepare", "Train", "Evaluate"}
    assert steps["Train"]["Metadata"] == steps_of(client, first_run)["Train"]["Metadata"]


def test_a_missed_gate_fails_with_both_figures_and_logs_why_the_cache_missed(
    cloud: Any, client: Any, full: str, first_run: str, poll: Callable[..., Any]
) -> None:
    arn = start(client, full, {"Accuracy": 0.5})
    execution = wait(client, arn, poll)
    assert (execution["PipelineExecutionStatus"], execution["FailureReason"]) == ("Failed", "Step failure: One or multiple steps failed.")
    steps = steps_of(client, arn)
    assert list(steps) == ["Prepare", "Train", "Evaluate", "Gate", "Missed"]
    assert steps["Missed"]["FailureReason"] == "accuracy 0.5 is below 0.9"
    assert steps["Missed"]["Metadata"] == {"Fail": {"ErrorMessage": "accuracy 0.5 is below 0.9"}}
    assert "CacheHitResult" in steps["Prepare"]
    assert "CacheHitResult" not in steps["Train"]
    newest = client.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"][0]
    assert newest["StepName"] == "Missed"
    summary = client.list_pipeline_executions(PipelineName=full, MaxResults=1)["PipelineExecutionSummaries"][0]
    assert summary["PipelineExecutionFailureReason"] == "Step failure: One or multiple steps failed."

    events = cloud.client("logs").get_log_events(
        logGroupName=f"/aws/sagemaker/Pipelines/{full}", logStreamName=arn.rpartition("/")[2], startFromHead=True
    )["events"]
    lines = [json.loads(event["message"]) for event in events]
    changed = next(line["cache"]["changed"] for line in lines if line["step"] == "Train" and line.get("cache"))
    assert changed == ["HyperParameters.accuracy: '0.95' -> '0.5'"]


def test_a_job_that_fails_gives_the_step_its_own_message(client: Any, full: str, poll: Callable[..., Any]) -> None:
    arn = start(client, full, {"Data": f"s3://{BUCKET}/raw/bad"})
    assert wait(client, arn, poll)["PipelineExecutionStatus"] == "Failed"
    steps = steps_of(client, arn)
    assert list(steps) == ["Prepare"]
    assert steps["Prepare"]["FailureReason"].startswith("ClientError: AlgorithmError: ")
    assert "the data is bad" in steps["Prepare"]["FailureReason"]


def test_describing_and_listing(client: Any, full: str, first_run: str) -> None:
    pipeline = client.describe_pipeline(PipelineName=full)
    assert json.loads(pipeline["PipelineDefinition"]) == full_definition()
    assert (pipeline["PipelineStatus"], pipeline["PipelineDescription"], pipeline["RoleArn"]) == ("Active", "all of it", ROLE)
    assert pipeline["LastRunTime"] >= pipeline["CreationTime"]
    assert client.describe_pipeline(PipelineName=pipeline["PipelineArn"])["PipelineName"] == full
    assert client.list_tags(ResourceArn=pipeline["PipelineArn"])["Tags"] == [{"Key": "team", "Value": "t"}]
    listed = client.list_pipelines(PipelineNamePrefix=full)["PipelineSummaries"]
    assert [summary["PipelineName"] for summary in listed] == [full]
    definition = client.describe_pipeline_definition_for_execution(PipelineExecutionArn=first_run)
    assert json.loads(definition["PipelineDefinition"]) == full_definition()
    parameters = client.list_pipeline_parameters_for_execution(PipelineExecutionArn=first_run)["PipelineParameters"]
    assert parameters == [
        {"Name": "Data", "Value": f"s3://{BUCKET}/raw/good"},
        {"Name": "Accuracy", "Value": "0.95"},
        {"Name": "Minimum", "Value": "0.9"},
        {"Name": "Status", "Value": "PendingManualApproval"},
    ]


def test_lists_come_in_pages(client: Any, poll: Callable[..., Any]) -> None:
    names = ["A", "B", "C", "D", "E"]
    pipeline = create(client, conditions_only(*names))
    arns = [start(client, pipeline) for _ in range(3)]
    for arn in arns:
        wait(client, arn, poll)
    pages = list(
        client.get_paginator("list_pipeline_execution_steps").paginate(PipelineExecutionArn=arns[0], PaginationConfig={"PageSize": 2})
    )
    assert [[step["StepName"] for step in page["PipelineExecutionSteps"]] for page in pages] == [["E", "D"], ["C", "B"], ["A"]]
    pages = list(
        client.get_paginator("list_pipeline_executions").paginate(
            PipelineName=pipeline, SortOrder="Ascending", PaginationConfig={"PageSize": 2}
        )
    )
    assert [[summary["PipelineExecutionArn"] for summary in page["PipelineExecutionSummaries"]] for page in pages] == [arns[:2], arns[2:]]
    assert refused(lambda: client.list_pipeline_executions(PipelineName=pipeline, NextToken="x"))[1] == "Invalid pagination token given."


def test_an_existing_name_is_refused_and_a_repeated_request_is_not(client: Any) -> None:
    token = uuid.uuid4().hex
    request = {
        "PipelineName": f"p-{token[:8]}",
        "RoleArn": ROLE,
        "PipelineDefinition": json.dumps(conditions_only("A")),
        "ClientRequestToken": token,
    }
    first = client.create_pipeline(**request)
    assert client.create_pipeline(**request)["PipelineArn"] == first["PipelineArn"]
    code, message = refused(lambda: client.create_pipeline(**request | {"ClientRequestToken": uuid.uuid4().hex}))
    assert code == "ValidationException"
    assert (
        message
        == f"Pipeline names must be unique within an AWS account and region. Pipeline with name ({request['PipelineName']}) already exists."
    )
    code, _ = refused(lambda: client.create_pipeline(**request | {"PipelineDescription": "another"}))
    assert code == "ConflictException"


def test_starting_twice_with_one_token_starts_once(client: Any) -> None:
    pipeline = create(client, conditions_only("A"))
    token = uuid.uuid4().hex
    assert start(client, pipeline, ClientRequestToken=token) == start(client, pipeline, ClientRequestToken=token)
    assert len(client.list_pipeline_executions(PipelineName=pipeline)["PipelineExecutionSummaries"]) == 1


PARAMETERS: list[Json] = [
    {"Name": "Uri", "Type": "String"},
    {"Name": "Epochs", "Type": "Integer", "DefaultValue": 1},
    {"Name": "Rate", "Type": "Float", "DefaultValue": 0.1},
    {"Name": "Fast", "Type": "Boolean", "DefaultValue": False},
    {"Name": "Status", "Type": "String", "DefaultValue": "a", "EnumValues": ["a", "b"]},
]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, '[object has missing required properties (["Uri"])]'),
        ({"Uri": "x", "Epoch": 1}, '[object instance has properties which are not allowed by the schema: ["Epoch"]]'),
        ({"Uri": "x", "Epochs": "many"}, "Pipeline parameter 'Epochs' of type Integer cannot be 'many'."),
        ({"Uri": "x", "Epochs": "1.5"}, '[instance type (string) does not match any allowed primitive type (allowed: ["integer"])]'),
        ({"Uri": "x", "Rate": "fast"}, '(allowed: ["integer","number"])'),
        ({"Uri": "x", "Fast": "yes"}, '(allowed: ["boolean"])'),
        ({"Uri": ""}, '[string "" is too short (length: 0, required minimum: 1)]'),
        ({"Uri": "x", "Status": "c"}, '[instance value ("c") not found in enum (possible values: ["a", "b"])]'),
    ],
)
def test_wrong_parameters_are_refused_and_nothing_starts(client: Any, parameters: Json, message: str) -> None:
    pipeline = create(client, conditions_only("A", parameters=PARAMETERS))
    code, text = refused(lambda: start(client, pipeline, parameters))
    assert code == "ValidationException"
    assert message in text
    assert client.list_pipeline_executions(PipelineName=pipeline)["PipelineExecutionSummaries"] == []


def test_right_parameters_are_accepted(client: Any, poll: Callable[..., Any]) -> None:
    pipeline = create(client, conditions_only("A", parameters=PARAMETERS))
    arn = start(client, pipeline, {"Uri": "x", "Epochs": 5, "Rate": 1e-5, "Fast": True, "Status": "b"})
    assert wait(client, arn, poll)["PipelineExecutionStatus"] == "Succeeded"
    listed = client.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)["PipelineParameters"]
    assert {item["Name"]: item["Value"] for item in listed} == {"Uri": "x", "Epochs": "5", "Rate": "1e-05", "Fast": "True", "Status": "b"}


def test_a_broken_definition_is_refused_at_create_and_at_update(client: Any) -> None:
    pipeline = create(client, conditions_only("A"))
    broken = json.dumps({"Version": "2020-12-01", "Steps": [{"Name": "A", "Type": "Tuning", "Arguments": {}}]})
    for call in (
        lambda: client.create_pipeline(PipelineName="broken", RoleArn=ROLE, PipelineDefinition=broken),
        lambda: client.update_pipeline(PipelineName=pipeline, PipelineDefinition=broken, PipelineDescription="new"),
    ):
        code, message = refused(call)
        assert code == "ValidationException"
        assert "The step type Tuning (step 'A') is not supported by localcloud." in message
    unchanged = client.describe_pipeline(PipelineName=pipeline)
    assert json.loads(unchanged["PipelineDefinition"]) == conditions_only("A")
    assert "PipelineDescription" not in unchanged
    assert refused(lambda: client.describe_pipeline(PipelineName="broken"))[0] == "ResourceNotFound"


def test_a_definition_can_come_from_s3(cloud: Any, client: Any) -> None:
    cloud.client("s3").put_object(Bucket=BUCKET, Key="definition.json", Body=json.dumps(conditions_only("A")).encode())
    name = f"p-{uuid.uuid4().hex[:8]}"
    client.create_pipeline(PipelineName=name, RoleArn=ROLE, PipelineDefinitionS3Location={"Bucket": BUCKET, "ObjectKey": "definition.json"})
    assert json.loads(client.describe_pipeline(PipelineName=name)["PipelineDefinition"]) == conditions_only("A")
    location = {"Bucket": BUCKET, "ObjectKey": "missing.json"}
    message = refused(lambda: client.create_pipeline(PipelineName="other", RoleArn=ROLE, PipelineDefinitionS3Location=location))[1]
    assert message.startswith(f"Unable to get the pipeline definition from s3://{BUCKET}/missing.json")


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (
            lambda c: c.describe_pipeline(PipelineName="nobody"),
            "ResourceNotFound",
            "Pipeline 'arn:aws:sagemaker:us-east-1:123456789012:pipeline/nobody' does not exist.",
        ),
        (lambda c: c.start_pipeline_execution(PipelineName="nobody"), "ResourceNotFound", "does not exist."),
        (lambda c: c.list_pipeline_executions(PipelineName="nobody"), "ResourceNotFound", "does not exist."),
        (
            lambda c: c.describe_pipeline_execution(PipelineExecutionArn="arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/x"),
            "ResourceNotFound",
            "Pipeline execution with ARN arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/x does not exist.",
        ),
        (
            lambda c: c.create_pipeline(PipelineName="x", RoleArn=ROLE),
            "ValidationException",
            "Either Pipeline Definition or Pipeline Definition S3 location",
        ),
        (
            lambda c: c.create_pipeline(
                PipelineName="x", RoleArn="arn:aws:iam::123456789012:role/nobody", PipelineDefinition=json.dumps(conditions_only("A"))
            ),
            "ValidationException",
            "Could not assume role arn:aws:iam::123456789012:role/nobody.",
        ),
        (lambda c: c.list_pipeline_versions(PipelineName="x"), "ValidationException", "not supported by localcloud"),
        (lambda c: c.describe_pipeline(PipelineName="x", PipelineVersionId=1), "ValidationException", "not supported by localcloud"),
        (
            lambda c: c.send_pipeline_execution_step_success(CallbackToken="abcdefghij"),
            "ResourceNotFound",
            "No callback step waits for the token",
        ),
    ],
)
def test_refusals(client: Any, call: Callable[[Any], Any], code: str, message: str) -> None:
    found = refused(lambda: call(client))
    assert found[0] == code
    assert message in found[1]


def test_stop_retry_and_delete(client: Any, poll: Callable[..., Any]) -> None:
    pipeline = create(client, sleeping())
    arn = start(client, pipeline)
    poll(lambda: steps_of(client, arn).get("Sleep", {}).get("Metadata"))
    code, message = refused(lambda: client.retry_pipeline_execution(PipelineExecutionArn=arn))
    assert code == "ValidationException"
    assert "Only pipelines with 'Failed' or 'Stopped' status can be retried" in message
    code, message = refused(lambda: client.delete_pipeline(PipelineName=pipeline))
    assert code == "ConflictException"

    client.stop_pipeline_execution(PipelineExecutionArn=arn)
    assert wait(client, arn, poll)["PipelineExecutionStatus"] == "Stopped"
    stopped = steps_of(client, arn)["Sleep"]
    assert stopped["StepStatus"] == "Stopped"
    assert job_of(client, stopped)["ProcessingJobStatus"] == "Stopped"
    assert refused(lambda: client.stop_pipeline_execution(PipelineExecutionArn=arn))[0] == "ValidationException"

    client.retry_pipeline_execution(PipelineExecutionArn=arn)
    again = poll(lambda: [step for step in steps_of(client, arn).values() if step["StepStatus"] == "Executing"])[0]
    assert again["AttemptCount"] == 2
    assert again["Metadata"] != stopped["Metadata"]
    client.stop_pipeline_execution(PipelineExecutionArn=arn)
    wait(client, arn, poll)

    client.delete_pipeline(PipelineName=pipeline)
    assert refused(lambda: client.describe_pipeline(PipelineName=pipeline))[0] == "ResourceNotFound"
    assert refused(lambda: client.describe_pipeline_execution(PipelineExecutionArn=arn))[0] == "ResourceNotFound"


def test_an_execution_can_be_renamed_and_given_more_room(client: Any, poll: Callable[..., Any]) -> None:
    pipeline = create(client, conditions_only("A"), ParallelismConfiguration={"MaxParallelExecutionSteps": 1})
    arn = start(client, pipeline)
    client.update_pipeline_execution(
        PipelineExecutionArn=arn, PipelineExecutionDisplayName="renamed", ParallelismConfiguration={"MaxParallelExecutionSteps": 4}
    )
    execution = wait(client, arn, poll)
    assert execution["PipelineExecutionDisplayName"] == "renamed"
    assert execution["ParallelismConfiguration"] == {"MaxParallelExecutionSteps": 4}


def test_selected_steps_run_with_what_an_earlier_execution_made(client: Any, full: str, first_run: str, poll: Callable[..., Any]) -> None:
    missing = refused(lambda: start(client, full, SelectiveExecutionConfig={"SelectedSteps": [{"StepName": "Evaluate"}]}))[1]
    assert missing == "Invalid SourcePipelineExecutionArn: null. The selected steps [Evaluate] have dependencies on [Prepare, Train]"
    config = {"SelectedSteps": [{"StepName": "Evaluate"}], "SourcePipelineExecutionArn": first_run}
    arn = start(client, full, SelectiveExecutionConfig=config)
    execution = wait(client, arn, poll)
    assert execution["PipelineExecutionStatus"] == "Succeeded"
    assert execution["SelectiveExecutionConfig"] == config
    steps = steps_of(client, arn)
    assert {name: "SelectiveExecutionResult" in step for name, step in steps.items()} == {"Prepare": True, "Train": True, "Evaluate": False}
    between = {"SelectedSteps": [{"StepName": "Prepare"}, {"StepName": "Evaluate"}], "SourcePipelineExecutionArn": first_run}
    assert "must be selected, too: [Train]" in refused(lambda: start(client, full, SelectiveExecutionConfig=between))[1]


def test_a_lambda_step_invokes_its_function(cloud: Any, client: Any, poll: Callable[..., Any]) -> None:
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("f.py", "def handler(event, context):\n    return {'twice': 2 * event['n'], 'other': None}\n")
    functions = cloud.client("lambda")
    function = functions.create_function(
        FunctionName="twice", Runtime="python3.11", Role=ROLE, Handler="f.handler", Code={"ZipFile": code.getvalue()}
    )["FunctionArn"]
    definition = {
        "Version": "2020-12-01",
        "Parameters": [{"Name": "N", "Type": "Integer", "DefaultValue": 21}],
        "Steps": [
            {
                "Name": "Twice",
                "Type": "Lambda",
                "FunctionArn": function,
                "Arguments": {"n": get("Parameters.N")},
                "OutputParameters": [{"OutputName": "twice", "OutputType": "Integer"}],
            }
        ],
    }
    arn = start(client, create(client, definition))
    assert wait(client, arn, poll)["PipelineExecutionStatus"] == "Succeeded", steps_of(client, arn)
    assert steps_of(client, arn)["Twice"]["Metadata"] == {
        "Lambda": {"Arn": function, "OutputParameters": [{"Name": "twice", "Value": "42"}]}
    }


def test_a_callback_step_is_answered_over_the_api(cloud: Any, client: Any, poll: Callable[..., Any]) -> None:
    sqs = cloud.client("sqs")
    url = sqs.create_queue(QueueName="callbacks")["QueueUrl"]
    definition = {
        "Version": "2020-12-01",
        "Steps": [
            {
                "Name": "Ask",
                "Type": "Callback",
                "SqsQueueUrl": url,
                "Arguments": {"question": "how many?"},
                "OutputParameters": [{"OutputName": "n", "OutputType": "Integer"}],
            }
        ],
    }
    arn = start(client, create(client, definition))
    body = json.loads(poll(lambda: sqs.receive_message(QueueUrl=url).get("Messages"))[0]["Body"])
    assert (body["pipelineExecutionArn"], body["arguments"]) == (arn, {"question": "how many?"})
    answer = client.send_pipeline_execution_step_success(CallbackToken=body["token"], OutputParameters=[{"Name": "n", "Value": "3"}])
    assert answer["PipelineExecutionArn"] == arn
    assert wait(client, arn, poll)["PipelineExecutionStatus"] == "Succeeded"


def test_events_reach_a_rule(cloud: Any, client: Any, poll: Callable[..., Any]) -> None:
    sqs, events = cloud.client("sqs"), cloud.client("events")
    url = sqs.create_queue(QueueName="pipeline-events")["QueueUrl"]
    queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": queue}
        ],
    }
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
    pattern = {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Building Pipeline Execution Status Change"],
        "detail": {"currentPipelineExecutionStatus": ["Succeeded"]},
    }
    events.put_rule(Name="pipelines", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="pipelines", Targets=[{"Id": "queue", "Arn": queue}])
    pipeline = create(client, conditions_only("A"))
    arn = start(client, pipeline)

    def received() -> Json | None:
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            event: Json = json.loads(message["Body"])
            if event["detail"]["pipelineExecutionArn"] == arn:
                return event
        return None

    event = poll(received)
    assert event["resources"] == [arn.partition("/execution/")[0], arn]
    assert event["detail"]["previousPipelineExecutionStatus"] == "Executing"
    events.remove_targets(Rule="pipelines", Ids=["queue"])
    events.delete_rule(Name="pipelines")


INFERENCE = """
import json
def model_fn(model_dir):
    return open(model_dir + "/accuracy.txt").read()
def input_fn(body, content_type):
    return body
def predict_fn(data, model):
    return model
def output_fn(prediction, accept):
    return json.dumps({"accuracy": prediction}), "application/json"
"""


def test_an_endpoint_step_makes_the_endpoint_and_then_updates_it(cloud: Any, client: Any, poll: Callable[..., Any]) -> None:
    s3 = cloud.client("s3")
    runtime = cloud.client("sagemaker-runtime")

    def artifact(accuracy: str) -> str:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, text in {"accuracy.txt": accuracy, "code/inference.py": INFERENCE}.items():
                member = tarfile.TarInfo(name)
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        s3.put_object(Bucket=BUCKET, Key=f"artifacts/{accuracy}/model.tar.gz", Body=packed.getvalue())
        return f"s3://{BUCKET}/artifacts/{accuracy}/model.tar.gz"

    gate_steps = full_definition()["Steps"][-1]["Arguments"]["IfSteps"]
    model, config = gate_steps[1], gate_steps[2]
    model["Arguments"]["PrimaryContainer"] = {
        "Image": "image",
        "ModelDataUrl": get("Parameters.ModelData"),
        "Environment": {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"},
    }
    endpoint = {
        "Name": "Endpoint",
        "Type": "Endpoint",
        "Arguments": {"EndpointName": "pipelines-staging", "EndpointConfigName": get("Steps.Config.EndpointConfigName")},
    }
    definition = {
        "Version": "2020-12-01",
        "Parameters": [{"Name": "ModelData", "Type": "String"}],
        "Steps": [model, config, endpoint],
    }
    pipeline = create(client, definition)
    for accuracy in ("0.5", "0.75"):
        arn = start(client, pipeline, {"ModelData": artifact(accuracy)})
        assert wait(client, arn, poll)["PipelineExecutionStatus"] == "Succeeded", steps_of(client, arn)
        assert steps_of(client, arn)["Endpoint"]["Metadata"]["Endpoint"]["Arn"].endswith(":endpoint/pipelines-staging")
        answer = runtime.invoke_endpoint(EndpointName="pipelines-staging", Body=b"{}", ContentType="application/json")
        assert json.loads(answer["Body"].read()) == {"accuracy": accuracy}
    client.delete_endpoint(EndpointName="pipelines-staging")


def test_the_sdks_pipeline_is_upserted_started_and_waited_for(region: Any, cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", region.endpoint_url)
    monkeypatch.setenv("SAGEMAKER_VALIDATE_ROLE", "false")
    from botocore.exceptions import WaiterError
    from sagemaker.core.workflow.conditions import ConditionGreaterThan
    from sagemaker.core.workflow.functions import Join
    from sagemaker.core.workflow.parameters import ParameterInteger
    from sagemaker.core.workflow.pipeline_context import PipelineSession
    from sagemaker.mlops.workflow.condition_step import ConditionStep
    from sagemaker.mlops.workflow.fail_step import FailStep
    from sagemaker.mlops.workflow.parallelism_config import ParallelismConfiguration
    from sagemaker.mlops.workflow.pipeline import Pipeline

    quiet = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
    session = PipelineSession(boto_session=boto3.Session(region_name="us-east-1"), default_bucket=BUCKET, sagemaker_config=quiet)
    number = ParameterInteger("Number", default_value=3)
    missed = FailStep("Missed", error_message=Join(on=" ", values=["the number is", number]))
    gate = ConditionStep("Gate", conditions=[ConditionGreaterThan(left=number, right=2)], if_steps=[], else_steps=[missed])
    pipeline = Pipeline("sdk-pipeline", parameters=[number], steps=[gate], sagemaker_session=session)
    created = pipeline.upsert(role_arn=ROLE, tags=[{"Key": "a", "Value": "1"}])
    updated = pipeline.upsert(role_arn=ROLE, tags=[{"Key": "b", "Value": "2"}], parallelism_config=ParallelismConfiguration(4))
    assert updated["PipelineArn"] == created["PipelineArn"]
    assert pipeline.describe()["ParallelismConfiguration"] == {"MaxParallelExecutionSteps": 4}

    execution = pipeline.start(parameters={"Number": 5})
    execution.wait(delay=1)
    assert [(step["StepName"], step["StepStatus"]) for step in execution.list_steps()] == [("Gate", "Succeeded")]
    execution = pipeline.start(parameters={"Number": 1})
    with pytest.raises(WaiterError, match="Failed"):
        execution.wait(delay=1)
    assert execution.list_steps()[0]["FailureReason"] == "the number is 1"
    assert pipeline.build_parameters_from_execution(execution.arn) == {"Number": "1"}
    pipeline.delete()


class Process:
    """A localcloud process that can be killed."""

    def __init__(self, state_dir: Path, poll: Callable[..., Any]) -> None:
        command = [sys.executable, "-m", "localcloud", "--state-dir", str(state_dir), "--quiet"]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        self._file = state_dir / "running.json"
        self.endpoint_url: str = poll(self._ready)

    def _ready(self) -> str | None:
        assert self.process.poll() is None
        try:
            running = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return None
        return str(running["endpoint_url"]) if running["pid"] == self.process.pid else None

    def client(self, service: str) -> Any:
        return boto3.client(service, endpoint_url=self.endpoint_url, region_name="us-east-1")

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def begin(state_dir: Path, poll: Callable[..., Any]) -> Iterator[Callable[[], Process]]:
    started: list[Process] = []

    def start_one() -> Process:
        started.append(Process(state_dir, poll))
        return started[-1]

    yield start_one
    for process in started:
        if process.process.poll() is None:
            process.kill()


def test_kill_9_leaves_a_failed_step_that_a_retry_goes_on_from(begin: Callable[[], Process], poll: Callable[..., Any]) -> None:
    first = begin()
    set_up(first.client)
    client = first.client("sagemaker")
    definition = full_definition()
    definition["Steps"][1:] = [processing("Sleep", "sleep", {}, [], DependsOn=["Prepare"])]
    definition["Steps"].append(conditions_only("After")["Steps"][0] | {"DependsOn": ["Sleep"]})
    pipeline = create(client, definition)
    arn = start(client, pipeline)
    poll(lambda: steps_of(client, arn).get("Sleep", {}).get("Metadata"))
    before = steps_of(client, arn)["Prepare"]
    assert before["StepStatus"] == "Succeeded"
    first.kill()

    client = begin().client("sagemaker")
    execution = client.describe_pipeline_execution(PipelineExecutionArn=arn)
    assert (execution["PipelineExecutionStatus"], execution["FailureReason"]) == ("Failed", "Step failure: One or multiple steps failed.")
    steps = steps_of(client, arn)
    assert list(steps) == ["Prepare", "Sleep"]
    assert steps["Prepare"] == before
    assert steps["Sleep"]["StepStatus"] == "Failed"
    assert steps["Sleep"]["FailureReason"].startswith("InternalServerError: localcloud ended while this step was running.")

    quick = {"SelectedSteps": [{"StepName": "Prepare"}]}
    again = start(client, pipeline, SelectiveExecutionConfig=quick)
    assert wait(client, again, poll)["PipelineExecutionStatus"] == "Succeeded"
    assert steps_of(client, again)["Prepare"]["CacheHitResult"] == {"SourcePipelineExecutionArn": arn}
    client.retry_pipeline_execution(PipelineExecutionArn=arn)
    poll(lambda: steps_of(client, arn)["Sleep"]["StepStatus"] == "Executing")
    assert steps_of(client, arn)["Prepare"] == before
    client.stop_pipeline_execution(PipelineExecutionArn=arn)
    assert wait(client, arn, poll)["PipelineExecutionStatus"] == "Stopped"
