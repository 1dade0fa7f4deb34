"""Documents as the API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from localcloud.database import Document


def execution(document: Document) -> dict[str, Any]:
    """Return a PipelineExecution."""
    revisions = [
        {
            "name": revision["artifact"],
            "revisionId": revision["id"],
            "revisionSummary": revision["summary"],
            "created": revision["created"],
            **({"revisionUrl": revision["url"]} if revision["url"] else {}),
        }
        for revision in document["revisions"].values()
    ]
    return {
        "pipelineName": document["pipeline"],
        "pipelineVersion": document["version"],
        "pipelineExecutionId": document["id"],
        "status": document["status"],
        **_stop_reason(document),
        "artifactRevisions": revisions,
        "variables": [{"name": name, "resolvedValue": value} for name, value in document["variables"].items()],
        "trigger": document["trigger"],
        "executionMode": document["mode"],
        "executionType": "STANDARD",
    }


def execution_summary(document: Document) -> dict[str, Any]:
    """Return a PipelineExecutionSummary."""
    revisions = [
        {
            "actionName": action,
            "revisionId": revision["id"],
            "revisionSummary": revision["summary"],
            **({"revisionUrl": revision["url"]} if revision["url"] else {}),
        }
        for action, revision in document["revisions"].items()
    ]
    shown = {
        "pipelineExecutionId": document["id"],
        "status": document["status"],
        **_stop_reason(document),
        "startTime": document["started"],
        "lastUpdateTime": document["updated"],
        "sourceRevisions": revisions,
        "trigger": document["trigger"],
        "executionMode": document["mode"],
        "executionType": "STANDARD",
    }
    if "stop" in document:
        shown["stopTrigger"] = {"reason": document["stop"]["reason"]}
    return shown


def _stop_reason(document: Document) -> dict[str, str]:
    return {"statusSummary": document["stop"]["reason"]} if document.get("stop", {}).get("reason") else {}


def action_detail(document: Document, region: str) -> dict[str, Any]:
    """Return an ActionExecutionDetail."""
    given: dict[str, Any] = {
        "actionTypeId": document["type"],
        "configuration": document["configuration"],
        "resolvedConfiguration": document.get("resolved", {}),
        "roleArn": document["role"],
        "region": region,
        "inputArtifacts": _artifacts(document["inputs"]),
    }
    if document["namespace"]:
        given["namespace"] = document["namespace"]
    result = {
        "externalExecutionId": document.get("external_id"),
        "externalExecutionSummary": document.get("summary"),
        "externalExecutionUrl": document.get("url"),
        "errorDetails": document.get("error"),
        "logStreamARN": document.get("log_stream"),
    }
    output: dict[str, Any] = {
        "outputArtifacts": _artifacts(document["outputs"]) if document["status"] == "Succeeded" else [],
        "executionResult": {member: value for member, value in result.items() if value},
        "outputVariables": document.get("variables", {}),
    }
    shown = {
        "pipelineExecutionId": document["execution"],
        "actionExecutionId": document["id"],
        "pipelineVersion": document["version"],
        "stageName": document["stage"],
        "actionName": document["action"],
        "startTime": document["started"],
        "lastUpdateTime": document["updated"],
        "status": document["status"],
        "input": given,
        "output": output,
    }
    if "updated_by" in document:
        shown["updatedBy"] = document["updated_by"]
    return shown


def _artifacts(artifacts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": one["name"], "s3location": {"bucket": one["bucket"], "key": one["key"]}} for one in artifacts]


def pipeline_state(pipeline: Document, executions: Sequence[Document], actions: Sequence[Document]) -> dict[str, Any]:
    """Return what GetPipelineState answers.

    Args:
        pipeline: The pipeline.
        executions: Its executions, the newest first.
        actions: Its action executions, the newest first.
    """
    latest: dict[tuple[str, str], Document] = {}
    for action in actions:
        latest.setdefault((action["stage"], action["action"]), action)
    declaration = pipeline["pipeline"]
    return {
        "pipelineName": pipeline["name"],
        "pipelineVersion": declaration["version"],
        "stageStates": [_stage_state(pipeline, stage, executions, latest) for stage in declaration["stages"]],
        "created": pipeline["created"],
        "updated": pipeline["updated"],
    }


def _stage_state(
    pipeline: Document, stage: dict[str, Any], executions: Sequence[Document], latest: dict[tuple[str, str], Document]
) -> dict[str, Any]:
    name = stage["name"]
    disabled = pipeline["transitions"].get(name)
    transition: dict[str, Any] = {"enabled": disabled is None}
    if disabled is not None:
        transition |= {"lastChangedBy": disabled["by"], "lastChangedAt": disabled["at"], "disabledReason": disabled["reason"]}
    state: dict[str, Any] = {
        "stageName": name,
        "inboundTransitionState": transition,
        "actionStates": [_action_state(action, latest.get((name, action["name"]))) for action in stage["actions"]],
    }
    waiting = [{"pipelineExecutionId": one["id"], "status": "InProgress"} for one in executions if one["waits"] == name]
    if waiting:
        # The one that comes next.
        state |= {"inboundExecution": waiting[-1], "inboundExecutions": waiting}
    entered = next((one for one in executions if name in one["stages"] and one["waits"] != name), None)
    if entered is not None:
        own = entered["stages"][name]
        status = "Stopping" if own["status"] == "InProgress" and entered["status"] == "Stopping" else own["status"]
        state["latestExecution"] = {"pipelineExecutionId": entered["id"], "status": status, "type": "STANDARD"}
        if own.get("retried"):
            state["retryStageMetadata"] = {"manualStageRetryAttempt": own["retried"], "latestRetryTrigger": "ManualStageRetry"}
    return state


def _action_state(declaration: dict[str, Any], action: Document | None) -> dict[str, Any]:
    state: dict[str, Any] = {"actionName": declaration["name"]}
    if action is None:
        return state
    found: dict[str, Any] = {
        "actionExecutionId": action["id"],
        "status": action["status"],
        "lastStatusChange": action["updated"],
        "summary": None if "error" in action else action.get("summary"),
        "lastUpdatedBy": action.get("updated_by"),
        "externalExecutionId": action.get("external_id"),
        "externalExecutionUrl": action.get("url"),
        "errorDetails": action.get("error"),
        "logStreamARN": action.get("log_stream"),
        # An approval's token is for whom may answer, and only while nobody has.
        "token": action.get("token") if action["status"] == "InProgress" else None,
    }
    state["latestExecution"] = {member: value for member, value in found.items() if value}
    revision = action.get("revision")
    if revision is not None:
        state["currentRevision"] = {"revisionId": revision["id"], "revisionChangeId": revision["id"], "created": revision["created"]}
        if revision["url"]:
            state["revisionUrl"] = revision["url"]
    return state
