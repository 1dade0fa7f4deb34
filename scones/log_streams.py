"""Which CloudWatch log group and stream prefix hold what a person asks for by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scones.target import Target


@dataclass(frozen=True)
class LogSource:
    """Part of a log group.

    Attributes:
        group: CloudWatch log group.
        stream_prefix: Prefix of the streams in it; empty for all.
    """

    group: str
    stream_prefix: str = ""


@dataclass(frozen=True)
class LogLine:
    """One log event; `timestamp` is in milliseconds since the epoch."""

    timestamp: int
    stream: str
    message: str


_JOB_GROUPS = {"processing-job": "/aws/sagemaker/ProcessingJobs", "training-job": "/aws/sagemaker/TrainingJobs"}


def of_job(target: Target, job_arn: str) -> LogSource | None:
    """Return where a SageMaker job logs, from its ARN; None for what has no log."""
    from pipelines.executions import job_name

    group = _JOB_GROUPS.get(job_arn.rpartition(":")[2].partition("/")[0])
    return None if group is None else LogSource(group, f"{job_name(target.client('sagemaker'), job_arn)}/")


def of_function(name: str) -> LogSource:
    """Return where a Lambda function logs."""
    return LogSource(f"/aws/lambda/{name}")


def of_endpoint(name: str) -> LogSource:
    """Return where a SageMaker endpoint's containers log."""
    return LogSource(f"/aws/sagemaker/Endpoints/{name}")


def read(target: Target, source: LogSource, last: int | None = None) -> list[LogLine]:
    """Return a source's lines in order of time, or its *last* ones; none when it has not logged yet."""
    lines = sorted(_events(target.client("logs"), source), key=lambda line: line.timestamp)
    return lines if last is None else lines[-last:]


def _events(logs: Any, source: LogSource) -> Iterator[LogLine]:
    request = {"logGroupName": source.group}
    if source.stream_prefix:
        request["logStreamNamePrefix"] = source.stream_prefix
    try:
        for page in logs.get_paginator("filter_log_events").paginate(**request):
            for event in page["events"]:
                yield LogLine(event["timestamp"], event["logStreamName"], event["message"])
    except logs.exceptions.ResourceNotFoundException:
        return
