"""Executions of the pipeline as typed data: following one live, and describing one that ran."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast

from pipelines.errors import RunError

if TYPE_CHECKING:
    import boto3

StepStatus = Literal["Starting", "Executing", "Stopping", "Stopped", "Failed", "Succeeded"]
ExecutionStatus = Literal["Executing", "Stopping", "Stopped", "Failed", "Succeeded"]
TERMINAL: frozenset[ExecutionStatus] = frozenset({"Stopped", "Failed", "Succeeded"})

_EVALUATE_STEP = "Evaluate"
_EVALUATION_OUTPUT = "evaluation"
_EVALUATION_FILE = "evaluation.json"
_REGISTER_STEP = "RegisterModel"
_SHORTEST_POLL, _LONGEST_POLL = 0.2, 5.0
# Polls are this share of the time since the last change apart: a change of a step that takes a minute is seen within about a second, and a
# job of hours is not asked about more than every `_LONGEST_POLL` seconds.
_POLL_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class StepProgress:
    """One step of an execution as it stands.

    Attributes:
        seconds: From start to end, or to now while it runs; None before it starts.
        cached: Its result was taken from an earlier execution.
        failure_reason: SageMaker's words, or the job script's own message.
        resource_arn: The job, model, endpoint or model package that the step made.
    """

    name: str
    display_name: str
    status: StepStatus
    seconds: float | None = None
    cached: bool = False
    failure_reason: str | None = None
    resource_arn: str | None = None
    cached_from: str | None = None


@dataclass(frozen=True, slots=True)
class EvaluationMetrics:
    """The figures that decide, from the Evaluate step's report; fractions are 0 to 1, times are milliseconds."""

    accuracy: float
    confidence_interval: tuple[float, float]
    test_images: int
    threshold: float
    coverage_at_threshold: float
    accuracy_at_threshold: float | None
    expected_calibration_error: float
    latency_p50_ms: float
    latency_p99_ms: float
    accuracy_floor_from_champion: float
    champion_accuracy: float | None

    @classmethod
    def from_report(cls, report: Mapping[str, Any]) -> EvaluationMetrics:
        """Read the ``scones`` section of ``evaluation.json``. Raises KeyError when a figure is missing."""
        figures = report["scones"]
        low, high = figures["confidence_interval"]
        champion = figures["champion"]
        return cls(
            accuracy=figures["accuracy"],
            confidence_interval=(low, high),
            test_images=figures["test_images"],
            threshold=figures["threshold"],
            coverage_at_threshold=figures["coverage_at_threshold"],
            accuracy_at_threshold=figures["accuracy_at_threshold"],
            expected_calibration_error=figures["expected_calibration_error"],
            latency_p50_ms=figures["latency_ms"]["p50"],
            latency_p99_ms=figures["latency_ms"]["p99"],
            accuracy_floor_from_champion=figures["accuracy_floor_from_champion"],
            champion_accuracy=None if champion is None else champion["accuracy"],
        )


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """An execution as it stands: when it has ended, what came of it.

    Attributes:
        evaluation_uri: Folder with evaluation.json and the pictures.
        is_earlier: Nothing was started: this execution, which was there already, has the same inputs.
    """

    execution_arn: str
    status: ExecutionStatus
    failure_reason: str | None
    steps: tuple[StepProgress, ...]
    metrics: EvaluationMetrics | None = None
    evaluation_uri: str | None = None
    model_package_arn: str | None = None
    is_earlier: bool = False

    @property
    def failed_step(self) -> StepProgress | None:
        """The first step that failed."""
        return next((step for step in self.steps if step.status == "Failed"), None)


def follow_execution(boto_session: boto3.Session, execution_arn: str) -> Iterator[StepProgress]:
    """Yield each step whenever its status changes, in the order in which they started, until the execution has ended.

    Raises:
        RunError: There is no such execution.
    """
    client = boto_session.client("sagemaker", region_name=_region(execution_arn))
    seen: dict[str, StepStatus] = {}
    last_change = time.monotonic()
    while True:
        # The status first: when it is terminal, the steps that are listed after it are final too.
        ended = _describe(client, execution_arn)["PipelineExecutionStatus"] in TERMINAL
        for step in list_steps(client, execution_arn):
            if seen.get(step.name) != step.status:
                seen[step.name] = step.status
                last_change = time.monotonic()
                yield step
        if ended:
            return
        time.sleep(min(max((time.monotonic() - last_change) * _POLL_SHARE, _SHORTEST_POLL), _LONGEST_POLL))


def describe_execution(boto_session: boto3.Session, execution_arn: str) -> ExecutionResult:
    """The execution as it stands, with the evaluation's figures once Evaluate has succeeded.

    Raises:
        RunError: There is no such execution.
    """
    client = boto_session.client("sagemaker", region_name=_region(execution_arn))
    description = _describe(client, execution_arn)
    steps = tuple(list_steps(client, execution_arn))
    by_name = {step.name: step for step in steps if step.status == "Succeeded"}
    evaluation_uri = _evaluation_uri(client, by_name.get(_EVALUATE_STEP))
    register = by_name.get(_REGISTER_STEP)
    return ExecutionResult(
        execution_arn=execution_arn,
        status=description["PipelineExecutionStatus"],
        failure_reason=description.get("FailureReason"),
        steps=steps,
        metrics=_metrics(boto_session.client("s3", region_name=_region(execution_arn)), evaluation_uri),
        evaluation_uri=evaluation_uri,
        model_package_arn=register.resource_arn if register else None,
    )


def list_steps(client: Any, execution_arn: str) -> Iterator[StepProgress]:
    """All steps that have started so far, oldest first."""
    pages = client.get_paginator("list_pipeline_execution_steps").paginate(PipelineExecutionArn=execution_arn, SortOrder="Ascending")
    for page in pages:
        for step in page["PipelineExecutionSteps"]:
            source = step.get("CacheHitResult", {}).get("SourcePipelineExecutionArn")
            metadata = step.get("Metadata", {})
            yield StepProgress(
                name=step["StepName"],
                display_name=step.get("StepDisplayName") or step["StepName"],
                status=cast(StepStatus, step["StepStatus"]),
                seconds=_seconds(step.get("StartTime"), step.get("EndTime")),
                cached="CacheHitResult" in step,
                failure_reason=step.get("FailureReason") or metadata.get("Fail", {}).get("ErrorMessage"),
                resource_arn=_resource_arn(metadata),
                cached_from=source,
            )


def job_name(client: Any, job_arn: str) -> str:
    """The name of a processing or training job of a pipeline as it was given, which is how its log streams are named.

    SageMaker writes ARNs in lower case, but made-up names of jobs hold the step's name as it is:
    ``pipelines-<execution id>-Evaluate-<suffix>``. What cannot be found is taken from the ARN.
    """
    kind, _, lowered = job_arn.rpartition(":")[2].partition("/")
    listing = {"processing-job": ("list_processing_jobs", "ProcessingJob"), "training-job": ("list_training_jobs", "TrainingJob")}.get(kind)
    if listing is None or not lowered.startswith("pipelines-"):
        return lowered
    operation, noun = listing
    for page in client.get_paginator(operation).paginate(NameContains="-".join(lowered.split("-")[:2])):
        for job in page[f"{noun}Summaries"]:
            if job[f"{noun}Arn"] == job_arn:
                return str(job[f"{noun}Name"])
    return lowered


def _region(arn: str) -> str:
    """The region in an ARN: the session's own may be another.

    Raises:
        RunError: It is no ARN.
    """
    parts = arn.split(":")
    if len(parts) < 6 or parts[0] != "arn" or not parts[3]:
        raise RunError(
            f"{arn} is not the ARN of a pipeline execution (arn:aws:sagemaker:<region>:<account>:pipeline/<name>/execution/<id>)"
        )
    return parts[3]


def _describe(client: Any, execution_arn: str) -> Mapping[str, Any]:
    from botocore.exceptions import ClientError

    try:
        description: Mapping[str, Any] = client.describe_pipeline_execution(PipelineExecutionArn=execution_arn)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ("ResourceNotFound", "ValidationException"):
            raise RunError(f"there is no pipeline execution {execution_arn}") from None
        raise
    return description


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    if start is None:
        return None
    return max(((end or datetime.now(start.tzinfo)) - start).total_seconds(), 0.0)


def _resource_arn(metadata: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The ARN of whatever the step made: each kind of step has one entry of its own, most with an Arn."""
    for details in metadata.values():
        if "Arn" in details:
            return str(details["Arn"])
    return None


def _evaluation_uri(client: Any, evaluate: StepProgress | None) -> str | None:
    if evaluate is None:
        return None
    if evaluate.resource_arn is None:
        if evaluate.cached_from is None:
            return None
        earlier = {step.name: step for step in list_steps(client, evaluate.cached_from)}
        return _evaluation_uri(client, earlier.get(_EVALUATE_STEP))
    job = client.describe_processing_job(ProcessingJobName=job_name(client, evaluate.resource_arn))
    outputs = job.get("ProcessingOutputConfig", {}).get("Outputs", ())
    return next((output["S3Output"]["S3Uri"] for output in outputs if output["OutputName"] == _EVALUATION_OUTPUT), None)


def _metrics(s3: Any, evaluation_uri: str | None) -> EvaluationMetrics | None:
    """The report's figures; None when there is no report, or it is of another shape (made by an older version of the steps)."""
    if evaluation_uri is None:
        return None
    from botocore.exceptions import ClientError

    bucket, _, prefix = evaluation_uri.removeprefix("s3://").partition("/")
    try:
        body = s3.get_object(Bucket=bucket, Key=f"{prefix.rstrip('/')}/{_EVALUATION_FILE}")["Body"].read()
        return EvaluationMetrics.from_report(json.loads(body))
    except (ClientError, ValueError, KeyError, TypeError):
        return None
