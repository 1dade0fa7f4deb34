"""How executions tell what happens: EventBridge events in AWS's shapes, and one JSON line per step event in CloudWatch Logs.

The log group is ``/aws/sagemaker/Pipelines/<pipeline>``, the stream the execution's id. AWS's API has no field for why a step was not taken from the cache;
the line of a started step has it, under ``cache``.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from localcloud.sagemaker.pipelines.expressions import format_time
from localcloud.sagemaker.pipelines.host import Host
from localcloud.sagemaker.pipelines.store import Document

EXECUTION_EVENT = "SageMaker Model Building Pipeline Execution Status Change"
STEP_EVENT = "SageMaker Model Building Pipeline Execution Step Status Change"
LOG_GROUP = "/aws/sagemaker/Pipelines"


class Reporter:
    """Sends what `Host` delivers."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def execution(self, document: Document, previous: str | None) -> None:
        """Report an execution's new status."""
        detail = {
            "pipelineExecutionDisplayName": document.get("DisplayName"),
            "currentPipelineExecutionStatus": document["Status"],
            "previousPipelineExecutionStatus": previous,
            "executionStartTime": _seconds(document["CreationTime"]),
            "executionEndTime": _seconds(document.get("EndTime")),
            "pipelineExecutionDescription": document.get("Description"),
            "pipelineArn": document["PipelineArn"],
            "pipelineExecutionArn": document["Arn"],
        }
        self._host.emit(EXECUTION_EVENT, _without_none(detail), [document["PipelineArn"], document["Arn"]])

    def step(self, pipeline_arn: str, document: Document, previous: str | None) -> None:
        """Report a step's new status."""
        hit = document.get("CacheHit")
        detail = {
            "failureReason": document.get("FailureReason"),
            "metadata": _lower_first(document["Metadata"]),
            "stepStartTime": _seconds(document["StartTime"]),
            "stepEndTime": _seconds(document.get("EndTime")),
            "stepName": document["Name"],
            "stepType": document["Type"],
            "previousStepStatus": previous,
            "currentStepStatus": document["Status"],
            "cacheHitResult": {"sourcePipelineExecutionArn": hit} if hit else None,
            "pipelineArn": pipeline_arn,
            "pipelineExecutionArn": document["Execution"],
        }
        self._host.emit(STEP_EVENT, _without_none(detail), [pipeline_arn, document["Execution"]])
        self._log(document)

    def _log(self, document: Document) -> None:
        line = {
            "time": format_time(datetime.now(UTC)),
            "step": document["Name"],
            "type": document["Type"],
            "status": document["Status"],
            "attempt": document["AttemptCount"],
            "metadata": document["Metadata"] or None,
            "cache": document.get("Cache"),
            "failure_reason": document.get("FailureReason"),
        }
        self._host.log(f"{LOG_GROUP}/{document['Pipeline']}", document["ExecutionId"], json.dumps(_without_none(line)))


def _seconds(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _without_none(detail: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in detail.items() if value is not None}


def _lower_first(value: Any) -> Any:
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _lower_first(item) for key, item in value.items()}
    return [_lower_first(item) for item in value] if isinstance(value, list) else value
