"""Pipeline executions as the command line names them: the newest, an ARN, or an execution id."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from pipelines.errors import RunError
from pipelines.executions import ExecutionResult, StepProgress, describe_execution
from scones.errors import ExitCode, SconesError

if TYPE_CHECKING:
    from pipelines.settings import Settings
    from scones.target import Target


class Executions:
    """The executions of the project's pipeline."""

    def __init__(self, target: Target, settings: Settings) -> None:
        self._session = target.session
        self._pipeline = settings.pipeline.name

    def newest(self) -> ExecutionResult | None:
        """Return the newest execution, or None when there never was one."""
        arns = self._arns(limit=1)
        return describe_execution(self._session, arns[0]) if arns else None

    def find(self, name: str) -> ExecutionResult:
        """Return an execution by ARN or id.

        Raises:
            SconesError: There is none of that name; the message lists the newest.
        """
        if name.startswith("arn:"):
            try:
                return describe_execution(self._session, name)
            except RunError as error:
                raise SconesError(str(error), "The newest: scones status", ExitCode.USAGE) from error
        arns = self._arns(limit=100)
        for arn in arns:
            if arn.rpartition("/")[2] == name:
                return describe_execution(self._session, arn)
        newest = ", ".join(arn.rpartition("/")[2] for arn in arns[:5]) or "none yet; start one: scones run"
        raise SconesError(f"There is no execution '{name}' of the pipeline {self._pipeline}", f"The newest: {newest}", ExitCode.USAGE)

    def _arns(self, limit: int) -> list[str]:
        sagemaker = self._session.client("sagemaker")
        try:
            page = sagemaker.list_pipeline_executions(
                PipelineName=self._pipeline, SortBy="CreationTime", SortOrder="Descending", MaxResults=limit
            )
        except sagemaker.exceptions.ResourceNotFound:
            return []
        return [summary["PipelineExecutionArn"] for summary in page["PipelineExecutionSummaries"]]


def document(execution: ExecutionResult) -> dict[str, Any]:
    """Return an execution as --json prints it."""
    return {
        "execution_arn": execution.execution_arn,
        "is_earlier": execution.is_earlier,
        "status": execution.status,
        "failure_reason": execution.failure_reason,
        "steps": [_step_document(step) for step in execution.steps],
        "metrics": None if execution.metrics is None else dataclasses.asdict(execution.metrics),
        "evaluation_uri": execution.evaluation_uri,
        "model_package_arn": execution.model_package_arn,
    }


def _step_document(step: StepProgress) -> dict[str, Any]:
    return {
        "name": step.name,
        "status": step.status,
        "seconds": step.seconds,
        "cached": step.cached,
        "failure_reason": step.failure_reason,
        "resource_arn": step.resource_arn,
    }
