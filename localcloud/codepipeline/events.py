"""CodePipeline's events.

https://docs.aws.amazon.com/codepipeline/latest/userguide/detect-state-changes-cloudwatch-events.html
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from localcloud.database import Document

SOURCE = "aws.codepipeline"
#: Sends an event: source, detail type, detail, resources.
Emit = Callable[[str, str, dict[str, Any], list[str]], None]


class Events:
    """Sends what happens to executions, stages and actions to the default event bus.

    Args:
        emit: Sends an event.
        arn: Gives a pipeline's ARN.
        region: The region's name.
    """

    def __init__(self, emit: Emit, arn: Callable[[str], str], region: str) -> None:
        self._emit = emit
        self._arn = arn
        self._region = region

    def pipeline(self, execution: Document, state: str) -> None:
        """Report an execution."""
        detail: dict[str, Any] = {"start-time": _time(execution["started"]), "state": state}
        if execution["git"]:
            detail["execution-trigger"] = execution["git"]
        elif state == "STARTED":
            trigger = execution["trigger"]
            detail["execution-trigger"] = {"trigger-type": trigger["triggerType"], "trigger-detail": trigger["triggerDetail"]}
        if "retried" in execution:
            detail["last-retry-attempt-time"] = _time(execution["retried"])
        if execution.get("stop", {}).get("reason"):
            detail["stop-execution-comments"] = execution["stop"]["reason"]
        self._send("Pipeline", execution, detail)

    def stage(self, execution: Document, stage: str, state: str) -> None:
        """Report a stage."""
        own = execution["stages"][stage]
        detail = {"stage": stage, "state": state}
        # AWS's example of a stage that is tried again has the one time in place of the other.
        if state != "RESUMED":
            detail["start-time"] = _time(own["started"])
        if "retried_at" in own:
            detail["stage-last-retry-attempt-time"] = _time(own["retried_at"])
        self._send("Stage", execution, detail)

    def action(self, execution: Document, action: Document, state: str) -> None:
        """Report an action."""
        detail: dict[str, Any] = {
            "stage": action["stage"],
            "action": action["action"],
            "action-execution-id": action["id"],
            "state": state,
            "region": self._region,
            "type": {key: action["type"][key] for key in ("owner", "provider", "category", "version")},
        }
        if state != "ABANDONED":
            detail["start-time"] = _time(action["started"])
        if state == "STARTED" and action["inputs"]:
            detail["input-artifacts"] = _artifacts(action["inputs"])
        if state in ("SUCCEEDED", "FAILED"):
            result = {
                "external-execution-id": action.get("external_id"),
                "external-execution-url": action.get("url"),
                "external-execution-summary": action.get("summary"),
                "error-code": action.get("error", {}).get("code"),
            }
            detail["execution-result"] = {key: value for key, value in result.items() if value}
        if state == "SUCCEEDED" and action["outputs"]:
            detail["output-artifacts"] = _artifacts(action["outputs"])
        self._send("Action", execution, detail)

    def _send(self, what: str, execution: Document, detail: dict[str, Any]) -> None:
        common = {
            "pipeline": execution["pipeline"],
            "execution-id": execution["id"],
            "version": float(execution["version"]),
            "pipeline-execution-attempt": float(execution["attempt"]),
        }
        arn = self._arn(execution["pipeline"])
        self._emit(SOURCE, f"CodePipeline {what} Execution State Change", common | detail, [arn])


def _artifacts(artifacts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": one["name"], "s3location": {"bucket": one["bucket"], "key": one["key"]}} for one in artifacts]


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
