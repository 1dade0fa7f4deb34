"""Running the pipeline: what is refused before anything starts, upsert, the champion, and executions as typed progress."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws
from rich.console import Console

from pipelines import cli
from pipelines.champion import resolve_champion
from pipelines.code_store import CodeBundle, CodeStore
from pipelines.definition import RenderedDefinition
from pipelines.errors import PlatformError, RunError
from pipelines.executions import EvaluationMetrics, ExecutionResult, describe_execution, follow_execution, job_name
from pipelines.platform import Platform, resolve_platform
from pipelines.revision import source_revision
from pipelines.run import NothingChanged, Preparing, RunEvent, execution_names, plan_run, run_pipeline, start_execution, upsert_pipeline
from pipelines.settings import Settings, load_settings
from scones.commands.run import plan_document, print_plan

BUCKET = "scones-dev-123456789012-us-east-1"
GROUP = "scones-vehicle-classifier"
ROLE = "arn:aws:iam::123456789012:role/role"
PLATFORM = Platform("us-east-1", BUCKET, ROLE, ROLE, ROLE, GROUP)
EXECUTION = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/scones-vehicle-classifier/execution/abcdefghijkl"
EARLIER = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/scones-vehicle-classifier/execution/earlier00000"
DEFINITION = json.dumps({"Version": "2020-12-01", "Parameters": [], "Steps": []})
START = datetime(2026, 1, 1, tzinfo=UTC)
REPORT = {
    "scones": {
        "accuracy": 0.97,
        "confidence_interval": [0.95, 0.99],
        "test_images": 200,
        "threshold": 0.93,
        "coverage_at_threshold": 0.9,
        "accuracy_at_threshold": 0.985,
        "expected_calibration_error": 0.02,
        "latency_ms": {"p50": 1.5, "p99": 3.0},
        "accuracy_floor_from_champion": 0.95,
        "champion": {"model_data": "s3://bucket/model.tar.gz", "accuracy": 0.96},
    }
}


def settings(*overrides: str) -> Settings:
    return load_settings("dev", overrides, {}).settings


@pytest.fixture
def account() -> Iterator[boto3.Session]:
    """An account with the artifact bucket and the model package group."""
    with mock_aws():
        session = boto3.Session(region_name="us-east-1")
        session.client("s3").create_bucket(Bucket=BUCKET)
        session.client("sagemaker").create_model_package_group(ModelPackageGroupName=GROUP)
        yield session


class StubbedSession:
    """A boto3 session whose SageMaker client answers what a test says, in order, checked against botocore's model of the API."""

    def __init__(self) -> None:
        self._session: Any = boto3.Session(region_name="us-east-1")
        self.sagemaker = self._session.client("sagemaker")
        self.stub = Stubber(self.sagemaker)
        self.stub.activate()

    def client(self, service: str, **_: Any) -> Any:
        return self.sagemaker if service == "sagemaker" else self._session.client(service)

    def executing(self, status: str, **more: Any) -> None:
        response = {"PipelineExecutionArn": EXECUTION, "PipelineExecutionStatus": status, **more}
        self.stub.add_response("describe_pipeline_execution", response, {"PipelineExecutionArn": EXECUTION})

    def steps(self, *steps: dict[str, Any], token: str | None = None, next_token: str | None = None, arn: str = EXECUTION) -> None:
        request = {"PipelineExecutionArn": arn, "SortOrder": "Ascending", **({"NextToken": token} if token else {})}
        response = {"PipelineExecutionSteps": list(steps), **({"NextToken": next_token} if next_token else {})}
        self.stub.add_response("list_pipeline_execution_steps", response, request)


def step(name: str, status: str, seconds: float | None = None, **more: Any) -> dict[str, Any]:
    times = {"StartTime": START, **({"EndTime": START + timedelta(seconds=seconds)} if seconds is not None else {})}
    return {"StepName": name, "StepDisplayName": f"The {name} step", "StepStatus": status, **times, **more}


# What must be there before anything starts


def test_the_platform_stack_s_outputs_fill_what_settings_leave_open(account: boto3.Session) -> None:
    names = ("ArtifactBucketName", "PipelineRoleArn", "JobRoleArn", "ModelRoleArn", "ModelPackageGroupName")
    template = {
        "Resources": {"Queue": {"Type": "AWS::SQS::Queue"}},
        "Outputs": {name: {"Value": f"the-{name}"} for name in names},
    }
    account.client("cloudformation").create_stack(StackName="scones-platform", TemplateBody=json.dumps(template))
    platform = resolve_platform(settings("aws.bucket=own-bucket"), account)
    assert platform == Platform(
        "us-east-1", "own-bucket", "the-PipelineRoleArn", "the-JobRoleArn", "the-ModelRoleArn", "the-ModelPackageGroupName"
    )
    del template["Outputs"]["JobRoleArn"]
    account.client("cloudformation").create_stack(StackName="older", TemplateBody=json.dumps(template))
    with pytest.raises(PlatformError, match="stack older has no output JobRoleArn; bring it up to date"):
        resolve_platform(settings("aws.platform_stack=older"), account)


def test_a_missing_platform_stack_says_what_to_deploy(account: boto3.Session) -> None:
    with pytest.raises(
        PlatformError,
        match=r"stack scones-platform does not exist in us-east-1; make it \(scones aws bootstrap\), or look in another region",
    ):
        resolve_platform(settings(), account)


def test_settings_alone_need_no_stack() -> None:
    given = settings(
        f"aws.bucket={BUCKET}",
        f"aws.pipeline_role_arn={ROLE}",
        f"aws.job_role_arn={ROLE}",
        f"aws.model_role_arn={ROLE}",
        f"registry.model_package_group={GROUP}",
    )
    assert resolve_platform(given, StubbedSession()) == PLATFORM  # any request would fail


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (None, "there are no images to train on; give a folder"),
        (f"s3://{BUCKET}/raw/unknown", "no staged images at .*/raw/unknown/: there is no manifest.json"),
        ("s3://no-such-bucket-here/raw/", "no staged images at s3://no-such-bucket-here/raw/"),
    ],
)
def test_without_staged_images_nothing_starts(account: boto3.Session, uri: str | None, message: str) -> None:
    given = settings(
        f"aws.bucket={BUCKET}",
        f"aws.pipeline_role_arn={ROLE}",
        f"aws.job_role_arn={ROLE}",
        f"aws.model_role_arn={ROLE}",
        f"registry.model_package_group={GROUP}",
    )
    events: list[object] = []
    with pytest.raises(RunError, match=message):
        run_pipeline(given, account, input_data_uri=uri, on_event=events.append)
    assert account.client("sagemaker").list_pipelines()["PipelineSummaries"] == []
    assert all(isinstance(event, Preparing) for event in events)


GIVEN = (
    f"aws.bucket={BUCKET}",
    f"aws.pipeline_role_arn={ROLE}",
    f"aws.job_role_arn={ROLE}",
    f"aws.model_role_arn={ROLE}",
    f"registry.model_package_group={GROUP}",
)


def test_a_dry_run_resolves_everything_and_writes_nothing(account: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = {"Name": "Gate", "Arguments": {"IfSteps": [{"Name": "Yes"}], "ElseSteps": [{"Name": "No"}]}}
    parameters = [{"Name": "Epochs", "DefaultValue": 3}, {"Name": "InputDataUri"}, {"Name": "ChampionModelUri"}]
    text = json.dumps({"Version": "2020-12-01", "Parameters": parameters, "Steps": [{"Name": "Train"}, gate]})
    code = CodeStore(BUCKET)
    prefix = code.add(CodeBundle({"a.py": b"a", "b.py": b"b"})).removeprefix(f"s3://{BUCKET}/")
    account.client("s3").put_object(Bucket=BUCKET, Key=f"{prefix}a.py", Body=b"a")
    monkeypatch.setattr("pipelines.run.load_definition", lambda *_, **__: RenderedDefinition(text, code))
    plan = plan_run(settings(*GIVEN), account, input_data_uri=f"s3://{BUCKET}/raw/later/", is_staged=False)
    assert (plan.pipeline, plan.uploads, plan.steps) == ("created", (f"{prefix}b.py",), ("Train", "Gate", "Yes", "No"))
    champion = f"s3://{BUCKET}/champion/none/"
    assert plan.parameters == {"Epochs": "3", "InputDataUri": f"s3://{BUCKET}/raw/later/", "ChampionModelUri": champion}
    assert account.client("sagemaker").list_pipelines()["PipelineSummaries"] == []
    assert account.client("s3").list_objects_v2(Bucket=BUCKET)["KeyCount"] == 1
    with pytest.raises(RunError, match="no staged images"):
        plan_run(settings(*GIVEN), account, input_data_uri=f"s3://{BUCKET}/raw/later/")


# The champion


def approve(session: boto3.Session, name: str, uri: str, status: str = "Approved") -> str:
    container = {"Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/image:1", "ModelDataUrl": uri}
    response = session.client("sagemaker").create_model_package(
        ModelPackageGroupName=GROUP,
        ModelPackageDescription=name,
        ModelApprovalStatus=status,
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["image/png"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )
    return str(response["ModelPackageArn"])


def test_without_an_approved_model_there_is_a_prefix_that_says_so(account: boto3.Session) -> None:
    approve(account, "waiting", f"s3://{BUCKET}/1/model.tar.gz", "PendingManualApproval")
    uri = resolve_champion(PLATFORM, account)
    assert uri == f"s3://{BUCKET}/champion/none/"
    body = account.client("s3").get_object(Bucket=BUCKET, Key="champion/none/none.json")["Body"].read()
    assert json.loads(body) == {"champion": None}


def test_the_champion_is_the_newest_approved_artifact(account: boto3.Session) -> None:
    for number, status in ((1, "Approved"), (2, "Approved"), (3, "Rejected"), (4, "PendingManualApproval")):
        account.client("s3").put_object(Bucket=BUCKET, Key=f"{number}/model.tar.gz", Body=b"model")
        approve(account, str(number), f"s3://{BUCKET}/{number}/model.tar.gz", status)
    assert resolve_champion(PLATFORM, account) == f"s3://{BUCKET}/2/model.tar.gz"


def test_a_champion_whose_artifact_is_gone_is_named(account: boto3.Session) -> None:
    arn = approve(account, "gone", f"s3://{BUCKET}/gone/model.tar.gz")
    with pytest.raises(PlatformError, match=f"cannot be read .404.: s3://{BUCKET}/gone/model.tar.gz; restore it, or reject {arn}"):
        resolve_champion(PLATFORM, account)


def test_a_missing_model_package_group_says_what_to_deploy() -> None:
    session = StubbedSession()
    session.stub.add_client_error("list_model_packages", "ValidationException", "ModelPackageGroup scones does not exist.")
    with pytest.raises(PlatformError, match=f"model package group {GROUP} cannot be listed: .*does not exist"):
        resolve_champion(PLATFORM, session)


# Create or update, start


def test_the_pipeline_is_created_then_left_then_updated(account: boto3.Session) -> None:
    definition = RenderedDefinition(DEFINITION, CodeStore(BUCKET))
    assert upsert_pipeline(settings(), PLATFORM, account, definition) == "created"
    described = account.client("sagemaker").describe_pipeline(PipelineName="scones-vehicle-classifier")
    assert (described["PipelineDefinition"], described["RoleArn"]) == (DEFINITION, ROLE)
    assert upsert_pipeline(settings(), PLATFORM, account, definition) == "unchanged"
    changed = replace(definition, text=json.dumps({"Version": "2020-12-01", "Parameters": [], "Steps": [], "Metadata": {}}))
    assert upsert_pipeline(settings(), PLATFORM, account, changed) == "updated"
    described = account.client("sagemaker").describe_pipeline(PipelineName="scones-vehicle-classifier")
    assert described["PipelineDefinition"] == changed.text


def test_an_execution_starts_with_the_given_parameters() -> None:
    session = StubbedSession()
    values = {"InputDataUri": "s3://bucket/raw/1/", "ChampionModelUri": "s3://bucket/champion/none/"}
    request = {
        "PipelineName": "scones-vehicle-classifier",
        "PipelineParameters": [{"Name": name, "Value": value} for name, value in values.items()],
    }
    unknown = {"PipelineExecutionDescription": "sources of no known commit"}
    session.stub.add_response("start_pipeline_execution", {"PipelineExecutionArn": EXECUTION}, {**request, **unknown})
    assert start_execution(settings(), PLATFORM, session, values) == EXECUTION
    told = {"PipelineExecutionDisplayName": "commit-0a1b-dirty", "PipelineExecutionDescription": "commit 0a1b-dirty"}
    session.stub.add_response("start_pipeline_execution", {"PipelineExecutionArn": EXECUTION}, {**request, **told})
    start_execution(settings(), PLATFORM, session, values, revision="0a1b-dirty")
    session.stub.assert_no_pending_responses()


@pytest.mark.parametrize("revision", ["a" * 40, f"{'a' * 64}-dirty", "V1._x--.", "-" * 200, "Zäh", "a" * 300])
def test_an_execution_is_named_as_sagemaker_allows(revision: str) -> None:
    shape = boto3.client("sagemaker", region_name="us-east-1").meta.service_model.shape_for("PipelineExecutionName")
    name = execution_names(revision)["PipelineExecutionDisplayName"]
    assert re.fullmatch(shape.metadata["pattern"], name)
    assert len(name) <= shape.metadata["max"]


# Only when something changed

VALUES = {"InputDataUri": f"s3://{BUCKET}/raw/1/", "ChampionModelUri": f"s3://{BUCKET}/champion/none/"}
DECLARED = {"Parameters": [{"Name": name, "Type": "String"} for name in VALUES], "Steps": []}


class History:
    """A SageMaker client with executions, newest first; whatever is started is remembered."""

    def __init__(self, *executions: tuple[str, str, dict[str, Any]]) -> None:
        self._executions = executions
        self.started: list[dict[str, Any]] = []

    def get_paginator(self, operation: str) -> Any:
        listing = {
            "list_pipeline_executions": lambda **_: [
                {
                    "PipelineExecutionSummaries": [
                        {"PipelineExecutionArn": arn, "PipelineExecutionStatus": s} for arn, s, _ in self._executions
                    ]
                }
            ],
            "list_pipeline_parameters_for_execution": lambda **_: [
                {"PipelineParameters": [{"Name": name, "Value": value} for name, value in VALUES.items()]}
            ],
            "list_pipeline_execution_steps": lambda **_: [{"PipelineExecutionSteps": []}],
        }
        return SimpleNamespace(paginate=listing[operation])

    def describe_pipeline_definition_for_execution(self, PipelineExecutionArn: str) -> dict[str, str]:
        return {"PipelineDefinition": next(json.dumps(text) for arn, _, text in self._executions if arn == PipelineExecutionArn)}

    def describe_pipeline_execution(self, PipelineExecutionArn: str) -> dict[str, str]:
        status = next((status for arn, status, _ in self._executions if arn == PipelineExecutionArn), "Executing")
        return {"PipelineExecutionArn": PipelineExecutionArn, "PipelineExecutionStatus": status}

    def start_pipeline_execution(self, **request: Any) -> dict[str, str]:
        self.started.append(request)
        return {"PipelineExecutionArn": EXECUTION}


def session_with(account: boto3.Session, monkeypatch: pytest.MonkeyPatch, history: History) -> Any:
    sagemaker = account.client("sagemaker")
    for name in ("get_paginator", "describe_pipeline_definition_for_execution", "describe_pipeline_execution", "start_pipeline_execution"):
        monkeypatch.setattr(sagemaker, name, getattr(history, name))
    account.client("s3").put_object(Bucket=BUCKET, Key="raw/1/manifest.json", Body=b"{}")
    monkeypatch.setattr("pipelines.run.load_definition", lambda *_, **__: RenderedDefinition(json.dumps(DECLARED), CodeStore(BUCKET)))
    return SimpleNamespace(client=lambda service, **_: sagemaker if service == "sagemaker" else account.client(service))


def run_if_changed(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, history: History, **options: Any
) -> tuple[ExecutionResult, list[RunEvent]]:
    session = session_with(account, monkeypatch, history)
    told: list[RunEvent] = []
    result = run_pipeline(settings(*GIVEN), session, wait=False, only_if_changed=True, on_event=told.append, **options)
    return result, told


def test_nothing_is_started_when_nothing_that_a_model_depends_on_has_changed(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(("arn:failed", "Failed", {"Steps": []}), (EARLIER, "Succeeded", DECLARED))
    result, told = run_if_changed(account, monkeypatch, history)
    assert (history.started, result.is_earlier, result.execution_arn) == ([], True, EARLIER)
    assert told[-1] == NothingChanged(EARLIER, "Succeeded")
    # Without --data, the images of the newest execution.
    assert any(isinstance(event, Preparing) and event.phase == "data" and VALUES["InputDataUri"] in event.detail for event in told)
    assert account.client("sagemaker").list_pipelines()["PipelineSummaries"] != []


def test_a_dry_run_says_that_nothing_would_be_started(account: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History((EARLIER, "Succeeded", DECLARED))
    session = session_with(account, monkeypatch, history)
    plan = plan_run(settings(*GIVEN), session, only_if_changed=True)
    assert plan.same_as == NothingChanged(EARLIER, "Succeeded")
    assert plan_run(settings(*GIVEN), session).same_as is None
    document = plan_document(settings(*GIVEN), plan, None)
    assert (document["starts"], document["same_as"]) == (False, EARLIER)
    text = io.StringIO()
    print_plan(Console(file=text, width=200), settings(*GIVEN), plan, None)
    assert "nothing is trained" in text.getvalue()
    assert "started with" not in text.getvalue()
    other = f"s3://{BUCKET}/raw/other/"
    assert plan_run(settings(*GIVEN), session, input_data_uri=other, is_staged=False, only_if_changed=True).same_as is None


@pytest.mark.parametrize(
    ("executions", "message"),
    [
        ([(EARLIER, "Failed", DECLARED)], "No execution has made a model yet"),
        ([(EARLIER, "Stopped", DECLARED)], "No execution has made a model yet"),
        (
            [(EARLIER, "Succeeded", {**DECLARED, "Steps": [{"Name": "Train", "Arguments": {}}]})],
            "Changed since execution earlier00000: Train",
        ),
        ([(EARLIER, "Executing", {**DECLARED, "Parameters": []})], "Changed since execution earlier00000: InputDataUri"),
    ],
)
def test_what_failed_is_tried_again_and_what_changed_is_told(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, executions: list[Any], message: str
) -> None:
    history = History(*executions)
    result, told = run_if_changed(account, monkeypatch, history)
    assert (len(history.started), result.is_earlier) == (1, False)
    assert message in [event.detail for event in told if isinstance(event, Preparing)]


# Executions


def test_each_change_of_a_step_is_told_once_over_all_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.executions.time.sleep", lambda seconds: None)
    session = StubbedSession()
    session.executing("Executing")
    session.steps(step("Preprocess", "Executing"))
    session.executing("Executing")
    session.steps(step("Preprocess", "Succeeded", 2), next_token="page-2")
    session.steps(step("Train", "Starting"), token="page-2")
    session.executing("Executing")
    session.steps(step("Preprocess", "Succeeded", 2), next_token="page-2")
    session.steps(step("Train", "Starting"), token="page-2")
    session.executing("Stopped")  # its steps are listed once more: their last status counts
    session.steps(step("Preprocess", "Succeeded", 2), step("Train", "Stopped", 3))
    told = [(progress.name, progress.status) for progress in follow_execution(session, EXECUTION)]
    assert told == [("Preprocess", "Executing"), ("Preprocess", "Succeeded"), ("Train", "Starting"), ("Train", "Stopped")]
    session.stub.assert_no_pending_responses()


def test_polls_are_further_apart_the_longer_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += 100.0

    monkeypatch.setattr("pipelines.executions.time.monotonic", lambda: now[0])
    monkeypatch.setattr("pipelines.executions.time.sleep", sleep)
    session = StubbedSession()
    for status in ("Executing", "Executing", "Executing", "Executing", "Succeeded"):
        session.executing(status)
        session.steps(step("Train", "Executing"))
    list(follow_execution(session, EXECUTION))
    assert waits == [0.2, 2.0, 4.0, 5.0]


def test_a_failed_execution_has_its_step_s_own_reason(account: boto3.Session) -> None:
    session = StubbedSession()
    session.executing("Failed", FailureReason="Step failure: One or multiple steps failed.")
    session.steps(step("Preprocess", "Succeeded", 2.5), step("Train", "Failed", 1, FailureReason="AlgorithmError: two classes are needed"))
    result = describe_execution(session, EXECUTION)
    assert (result.status, result.metrics, result.model_package_arn) == ("Failed", None, None)
    assert result.failed_step is not None
    assert (result.failed_step.name, result.failed_step.failure_reason) == ("Train", "AlgorithmError: two classes are needed")
    assert (result.steps[0].seconds, result.steps[0].display_name) == (2.5, "The Preprocess step")


def test_a_missed_gate_says_the_figures(account: boto3.Session) -> None:
    session = StubbedSession()
    session.executing("Failed")
    session.steps(step("QualityGateMissed", "Failed", 0, Metadata={"Fail": {"ErrorMessage": "test accuracy 0.8; required: at least 0.9"}}))
    failed = describe_execution(session, EXECUTION).failed_step
    assert failed is not None
    assert failed.failure_reason == "test accuracy 0.8; required: at least 0.9"


def listed(session: StubbedSession, job: str, page: int = 0, pages: int = 1) -> None:
    summary = {"ProcessingJobName": job, "ProcessingJobArn": arn_of(job), "CreationTime": START, "ProcessingJobStatus": "Completed"}
    request = {"NameContains": "pipelines-abc", **({"NextToken": f"page-{page}"} if page else {})}
    response = {"ProcessingJobSummaries": [summary], **({"NextToken": f"page-{page + 1}"} if page + 1 < pages else {})}
    session.stub.add_response("list_processing_jobs", response, request)


def arn_of(job: str) -> str:
    """SageMaker's ARN of a processing job: in lower case."""
    return f"arn:aws:sagemaker:us-east-1:123456789012:processing-job/{job.lower()}"


def evaluated(session: StubbedSession, job: str = "pipelines-abc-Evaluate-1") -> None:
    listed(session, job)
    output = {"S3Uri": f"s3://{BUCKET}/runs/evaluation", "LocalPath": "/opt/ml/processing/output/evaluation", "S3UploadMode": "EndOfJob"}
    response = {
        "ProcessingJobName": job,
        "ProcessingResources": {"ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.xlarge", "VolumeSizeInGB": 30}},
        "AppSpecification": {"ImageUri": "image"},
        "ProcessingJobArn": arn_of(job),
        "ProcessingJobStatus": "Completed",
        "CreationTime": START,
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "evaluation", "S3Output": output}]},
    }
    session.stub.add_response("describe_processing_job", response, {"ProcessingJobName": job})


EVALUATE_METADATA = {"Metadata": {"ProcessingJob": {"Arn": arn_of("pipelines-abc-Evaluate-1")}}}


def test_a_job_s_name_is_found_as_it_was_given() -> None:
    session = StubbedSession()
    listed(session, "pipelines-abc-Preprocess-9", 0, 2)
    listed(session, "pipelines-abc-Evaluate-1", 1, 2)
    assert job_name(session.sagemaker, arn_of("pipelines-abc-Evaluate-1")) == "pipelines-abc-Evaluate-1"
    listed(session, "pipelines-abc-Preprocess-9")
    assert job_name(session.sagemaker, arn_of("pipelines-abc-Gone-1")) == "pipelines-abc-gone-1"
    assert job_name(session.sagemaker, "arn:aws:sagemaker:us-east-1:123456789012:training-job/by-hand") == "by-hand"
    assert job_name(session.sagemaker, "arn:aws:sagemaker:us-east-1:123456789012:endpoint/scones-staging") == "scones-staging"
    session.stub.assert_no_pending_responses()


def test_a_finished_execution_has_figures_and_the_registered_version(account: boto3.Session) -> None:
    account.client("s3").put_object(Bucket=BUCKET, Key="runs/evaluation/evaluation.json", Body=json.dumps(REPORT).encode())
    package = f"arn:aws:sagemaker:us-east-1:123456789012:model-package/{GROUP}/1"
    session = StubbedSession()
    session.executing("Succeeded")
    session.steps(
        step("Evaluate", "Succeeded", 4, **EVALUATE_METADATA),
        step("RegisterModel", "Succeeded", 1, Metadata={"RegisterModel": {"Arn": package}}),
    )
    evaluated(session)
    result = describe_execution(session, EXECUTION)
    assert result.model_package_arn == package
    assert result.evaluation_uri == f"s3://{BUCKET}/runs/evaluation"
    assert result.metrics is not None
    assert (result.metrics.accuracy, result.metrics.champion_accuracy, result.metrics.latency_p99_ms) == (0.97, 0.96, 3.0)


def test_a_cached_evaluation_is_found_where_it_ran(account: boto3.Session) -> None:
    account.client("s3").put_object(Bucket=BUCKET, Key="runs/evaluation/evaluation.json", Body=json.dumps(REPORT).encode())
    session = StubbedSession()
    session.executing("Succeeded")
    session.steps(step("Evaluate", "Succeeded", 0, CacheHitResult={"SourcePipelineExecutionArn": EARLIER}))
    session.steps(step("Evaluate", "Succeeded", 4, **EVALUATE_METADATA), arn=EARLIER)
    evaluated(session)
    result = describe_execution(session, EXECUTION)
    assert result.steps[0].cached
    assert result.metrics is not None
    assert result.metrics.test_images == 200


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"scones": {"accuracy": 1}}', None])
def test_a_report_that_cannot_be_read_costs_only_the_figures(account: boto3.Session, body: bytes | None) -> None:
    if body is not None:
        account.client("s3").put_object(Bucket=BUCKET, Key="runs/evaluation/evaluation.json", Body=body)
    session = StubbedSession()
    session.executing("Succeeded")
    session.steps(step("Evaluate", "Succeeded", 4, **EVALUATE_METADATA))
    evaluated(session)
    assert describe_execution(session, EXECUTION).metrics is None


def test_without_a_champion_its_accuracy_is_none() -> None:
    figures = {**REPORT["scones"], "champion": None, "accuracy_floor_from_champion": 0.0}
    assert EvaluationMetrics.from_report({"scones": figures}).champion_accuracy is None


def test_an_execution_that_does_not_exist_is_one_line() -> None:
    session = StubbedSession()
    session.stub.add_client_error("describe_pipeline_execution", "ResourceNotFound", "Pipeline execution does not exist.")
    with pytest.raises(RunError, match="there is no pipeline execution arn:"):
        describe_execution(session, EXECUTION)


def test_what_is_no_arn_is_one_line() -> None:
    with pytest.raises(RunError, match="latest is not the ARN of a pipeline execution"):
        describe_execution(StubbedSession(), "latest")


# The commit


def test_the_revision_is_the_commit_and_says_when_files_differ(tmp_path: Path) -> None:
    assert source_revision(tmp_path, {}) is None
    assert source_revision(tmp_path, {"CODEBUILD_RESOLVED_SOURCE_VERSION": "abc"}) == "abc"
    (tmp_path / "pipelines").mkdir()
    archived = tmp_path / "pipelines" / "COMMIT"
    archived.write_text("$Format:%H$\n", encoding="utf-8")
    assert source_revision(tmp_path, {"CODEBUILD_RESOLVED_SOURCE_VERSION": "version-of-an-object"}) == "version-of-an-object"
    archived.write_text(f"{'c' * 40}\n", encoding="utf-8")
    assert source_revision(tmp_path, {"CODEBUILD_RESOLVED_SOURCE_VERSION": "version-of-an-object"}) == "c" * 40
    assert source_revision(tmp_path, {"CODEBUILD_RESOLVED_SOURCE_VERSION": "b" * 40}) == "b" * 40
    archived.unlink()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=test", "-c", "user.email=test@example.com"]
    (tmp_path / "file").write_text("1", encoding="utf-8")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert source_revision(tmp_path, {}) == commit
    (tmp_path / "file").write_text("2", encoding="utf-8")
    assert source_revision(tmp_path, {}) == f"{commit}-dirty"


# The template's console scripts


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that run-pipeline and get-pipeline-definition end up with, instead of what they would do with them."""
    seen: list[Settings] = []

    def stop(settings: Settings, *_: Any, **__: Any) -> Any:
        seen.append(settings)
        raise PlatformError("far enough")

    monkeypatch.setattr("pipelines.platform.resolve_platform", stop)
    monkeypatch.setattr("pipelines.run.resolve_platform", stop)
    return seen


def test_the_template_s_options_set_the_settings_of_the_same_meaning(chosen: list[Settings], capsys: pytest.CaptureFixture[str]) -> None:
    kwargs = {
        "region": "eu-west-1",
        "role": ROLE,
        "default_bucket": BUCKET,
        "pipeline_name": "own-name",
        "model_package_group_name": "own-group",
        "base_job_prefix": "own",
    }
    tags = [{"Key": "sagemaker:project-name", "Value": "vision"}]
    arguments = ["--module-name", "pipelines.pipeline", "--role-arn", ROLE, "--description", "Ours", "--tags", json.dumps(tags), "--kwargs"]
    assert cli.run_pipeline([*arguments, json.dumps(kwargs), "--set", "training.epochs=3"]) == 1
    (settings,) = chosen
    assert (settings.aws.region, settings.aws.job_role_arn, settings.aws.bucket, settings.pipeline.name) == (
        "eu-west-1",
        ROLE,
        BUCKET,
        "own-name",
    )
    assert (settings.registry.model_package_group, settings.pipeline.description, settings.training.epochs) == ("own-group", "Ours", 3)
    assert (settings.project.tags[0].key, settings.project.tags[0].value) == ("sagemaker:project-name", "vision")
    assert capsys.readouterr().err == "run-pipeline: far enough\n"


def test_kwargs_may_be_a_python_literal_as_in_the_template(chosen: list[Settings]) -> None:
    assert cli.get_pipeline_definition(["-n", "pipelines.pipeline", "-kwargs", "{'region': 'eu-west-1'}"]) == 1
    assert chosen[0].aws.region == "eu-west-1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kwargs", '{"regions": "x"}'], "--kwargs regions (did you mean region?)"),
        (["--kwargs", "region=x"], "neither JSON nor a Python literal of a dict"),
        (["--tags", '{"a": "b"}'], "neither JSON nor a Python literal of a list"),
        (["--tags", '[{"a": "b"}]'], "write '["),
        (["--set", "training.epoch=3"], "did you mean training.epochs?"),
        (["--stage", "prod"], "prod.yaml does not exist"),
    ],
)
def test_a_mistake_in_the_options_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run_pipeline(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_an_unknown_option_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.get_pipeline_definition(["--modul-name", "x"])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
