"""Pipeline executions as the command line names them: the newest, an ARN, an execution id, or the beginning of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
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
        arn = next(self._arns(), None)
        return None if arn is None else describe_execution(self._session, arn)

    def find(self, name: str) -> ExecutionResult:
        """Return an execution by ARN, by id, or by the beginning of its id.

        Raises:
            SconesError: There is none of that name, or there are several; the message lists some.
        """
        if name.startswith("arn:"):
            try:
                return describe_execution(self._session, name)
            except RunError as error:
                raise SconesError(str(error), "The newest: scones status", ExitCode.USAGE) from error
        arns: dict[str, str] = {}
        for arn in self._arns():
            identifier = arn.rpartition("/")[2]
            arns[identifier] = arn
            if identifier == name:
                break
        found = [name] if name in arns else [identifier for identifier in arns if name and identifier.startswith(name)]
        if len(found) == 1:
            return describe_execution(self._session, arns[found[0]])
        if found:
            raise SconesError(
                f"{len(found)} executions of the pipeline {self._pipeline} begin with '{name}'",
                f"Name one, with more of its id: {', '.join(found[:5])}{' ...' if len(found) > 5 else ''}",
                ExitCode.USAGE,
            )
        newest = ", ".join(list(arns)[:5]) or "none yet; start one: scones run"
        raise SconesError(f"There is no execution '{name}' of the pipeline {self._pipeline}", f"The newest: {newest}", ExitCode.USAGE)

    def _arns(self) -> Iterator[str]:
        """Newest first, asked for page by page."""
        sagemaker = self._session.client("sagemaker")
        pages = sagemaker.get_paginator("list_pipeline_executions").paginate(
            PipelineName=self._pipeline, SortBy="CreationTime", SortOrder="Descending", PaginationConfig={"PageSize": 100}
        )
        try:
            for page in pages:
                for summary in page["PipelineExecutionSummaries"]:
                    yield summary["PipelineExecutionArn"]
        except sagemaker.exceptions.ResourceNotFound:
            return


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
