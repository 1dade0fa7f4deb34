"""Deliveries: executions of the pipeline in CodePipeline, from a commit to a started training run, as a person asks about them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from scones.errors import ExitCode, SconesError
from scones.log_streams import LogSource
from scones.registry import stack_outputs

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?\b")

if TYPE_CHECKING:
    from pipelines.settings import Settings
    from scones.target import Target


@dataclass(frozen=True)
class DeliveryAction:
    """One action of a delivery.

    Attributes:
        build_id: The build in CodeBuild that it ran, when it ran one.
        reason: Why it failed.
    """

    stage: str
    name: str
    status: str
    seconds: float | None = None
    build_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class TrainingRun:
    """The execution of the SageMaker pipeline that was started for a delivery's commit."""

    execution_arn: str
    status: str


@dataclass(frozen=True)
class Delivery:
    """One delivery.

    Attributes:
        revision: The source's revision: the commit, or the version of the uploaded object.
        commit: The commit, where it is known.
        summary: The commit's message, or what AWS says instead.
        trigger: What started it, in CodePipeline's words.
    """

    execution_id: str
    status: str
    started: datetime | None
    revision: str | None
    commit: str | None
    summary: str | None
    trigger: str | None
    reason: str | None
    actions: tuple[DeliveryAction, ...] = ()

    @property
    def failed_action(self) -> DeliveryAction | None:
        """The first action that failed."""
        return next((action for action in self.actions if action.status == "Failed"), None)

    @property
    def found_nothing_pushed(self) -> bool:
        """Whether it is the execution that a new pipeline starts by itself, and there was no commit to deliver."""
        failed = self.failed_action
        return failed is not None and failed.stage == "Source" and (self.trigger or "").startswith("CreatePipeline")

    def document(self) -> dict[str, Any]:
        """Return the delivery as --json prints it."""
        return dataclasses.asdict(self)


class Deliveries:
    """The deliveries of the project.

    Raises:
        SconesError: The delivery stack is not deployed.
    """

    def __init__(self, target: Target, settings: Settings) -> None:
        self.stack_name = f"{settings.project.name}-cicd"
        self.outputs = stack_outputs(target, self.stack_name) or {}
        if "GitHubActionsRoleArn" in self.outputs:
            raise SconesError(
                f"GitHub Actions delivers {settings.cicd.repository or 'this project'}, not CodePipeline",
                "Look there: the repository's page, Actions.",
                ExitCode.USAGE,
            )
        if "PipelineName" not in self.outputs:
            option = " --aws" if target.kind == "aws" else ""
            raise SconesError(
                f"There is no delivery yet: {target} has no stack {self.stack_name}",
                f"Make it: scones cicd deploy{option}",
                ExitCode.USAGE,
            )
        self.pipeline_name = self.outputs["PipelineName"]
        self._pipeline = target.client("codepipeline")
        self._builds = target.client("codebuild")
        self._sagemaker = target.client("sagemaker")
        self._training = settings.pipeline.name

    def newest(self) -> Delivery | None:
        """Return the newest delivery, or None when nothing was pushed yet."""
        return next((self._with_actions(item) for item in self._executions()), None)

    def find(self, execution_id: str) -> Delivery:
        """Return a delivery by its execution's id, or the beginning of it.

        Raises:
            SconesError: There is none, or there are several; the message lists some.
        """
        executions = list(self._executions())
        found = [item for item in executions if item["pipelineExecutionId"].startswith(execution_id)]
        if len(found) == 1:
            return self._with_actions(found[0])
        listed = ", ".join(item["pipelineExecutionId"] for item in (found or executions)[:5]) or "none yet; push a commit"
        raise SconesError(
            f"{len(found) or 'No'} executions of {self.pipeline_name} are called '{execution_id}'",
            f"{'They are' if found else 'There are'}: {listed}",
            ExitCode.USAGE,
        )

    def log_source(self, action: DeliveryAction) -> LogSource | None:
        """Return where an action's build logs; None when it ran none, or has not logged yet."""
        if action.build_id is None:
            return None
        builds = self._builds.batch_get_builds(ids=[action.build_id])["builds"]
        logs = builds[0].get("logs", {}) if builds else {}
        return LogSource(logs["groupName"], logs["streamName"]) if "groupName" in logs and "streamName" in logs else None

    def training_run(self, delivery: Delivery) -> TrainingRun | None:
        """Return the run of the SageMaker pipeline that is described as being of the delivery's commit; None when its commit started none."""
        if delivery.commit is None or all(action.stage != "Pipeline" for action in delivery.actions):
            return None
        try:
            pages = self._sagemaker.get_paginator("list_pipeline_executions").paginate(
                PipelineName=self._training, SortBy="CreationTime", SortOrder="Descending", CreatedAfter=delivery.started
            )
            for summary in (summary for page in pages for summary in page["PipelineExecutionSummaries"]):
                if summary.get("PipelineExecutionDescription") == f"commit {delivery.commit}":
                    return TrainingRun(summary["PipelineExecutionArn"], summary["PipelineExecutionStatus"])
        except self._sagemaker.exceptions.ResourceNotFound:
            pass
        return None

    def _executions(self) -> Iterator[dict[str, Any]]:
        pages = self._pipeline.get_paginator("list_pipeline_executions").paginate(pipelineName=self.pipeline_name)
        for page in pages:
            yield from page["pipelineExecutionSummaries"]

    def _with_actions(self, summary: dict[str, Any]) -> Delivery:
        source: dict[str, str] = next(iter(summary.get("sourceRevisions", ())), {})
        # `scones cicd push` writes the commit before its message; a repository's revision is the commit.
        told = _message(source.get("revisionSummary", ""))
        commit = next((found[0] for text in (told, source.get("revisionId", "")) if (found := _COMMIT.match(text))), None)
        return Delivery(
            summary["pipelineExecutionId"],
            summary["status"],
            summary.get("startTime"),
            source.get("revisionId"),
            commit,
            told.removeprefix(commit or "").strip() or None,
            " ".join(summary["trigger"].values()) if summary.get("trigger") else None,
            summary.get("statusSummary"),
            tuple(self._actions(summary["pipelineExecutionId"])),
        )

    def _actions(self, execution_id: str) -> list[DeliveryAction]:
        """The last try of each action, in the order in which they began."""
        pages = self._pipeline.get_paginator("list_action_executions").paginate(
            pipelineName=self.pipeline_name, filter={"pipelineExecutionId": execution_id}
        )
        details = sorted((item for page in pages for item in page["actionExecutionDetails"]), key=lambda item: item["startTime"])
        latest = {(item["stageName"], item["actionName"]): _action(item) for item in details}
        return list(latest.values())


def _message(summary: str) -> str:
    """The first line of a commit's message; of a connection's revision CodePipeline says it inside a JSON document."""
    if summary.startswith("{"):
        with contextlib.suppress(ValueError):
            summary = str(json.loads(summary).get("CommitMessage", summary))
    return summary.partition("\n")[0]


def _action(detail: dict[str, Any]) -> DeliveryAction:
    result = detail.get("output", {}).get("executionResult", {})
    is_build = detail.get("input", {}).get("actionTypeId", {}).get("provider") == "CodeBuild"
    failed = detail["status"] == "Failed"
    return DeliveryAction(
        detail["stageName"],
        detail["actionName"],
        detail["status"],
        (detail["lastUpdateTime"] - detail["startTime"]).total_seconds() if "lastUpdateTime" in detail else None,
        result.get("externalExecutionId") if is_build else None,
        (result.get("errorDetails", {}).get("message") or result.get("externalExecutionSummary")) if failed else None,
    )
