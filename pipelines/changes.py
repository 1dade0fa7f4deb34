"""What a model depends on, compared with an earlier execution: a push that changes none of it has nothing to train.

Nothing is kept for this: SageMaker gives back the definition and the parameters of every execution, also of those that a person started.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.executions import ExecutionStatus

if TYPE_CHECKING:
    from pipelines.settings import Settings

DATA_PARAMETER = "InputDataUri"
#: The newest approved model, which a new one is compared with: what is trained does not depend on it.
_CHAMPION_PARAMETER = "ChampionModelUri"
#: An execution that failed or was stopped made no model, so that the same inputs are tried again: its finished steps are in the cache.
_COUNTING: frozenset[ExecutionStatus] = frozenset({"Executing", "Succeeded"})
_FOR_READERS = ("DisplayName", "Description")


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """An execution that was started before."""

    execution_arn: str
    status: ExecutionStatus
    definition: Mapping[str, Any]
    parameters: Mapping[str, str]


def newest_counting_run(client: Any, pipeline_name: str) -> EarlierRun | None:
    """Return the newest execution that has not failed and was not stopped, or None when there is none."""
    for summary in _summaries(client, pipeline_name):
        status = summary["PipelineExecutionStatus"]
        if status in _COUNTING:
            arn = summary["PipelineExecutionArn"]
            definition = client.describe_pipeline_definition_for_execution(PipelineExecutionArn=arn)["PipelineDefinition"]
            return EarlierRun(arn, status, json.loads(definition), _parameters(client, arn))
    return None


def newest_input_data(client: Any, settings: Settings) -> str | None:
    """Return the images of the newest execution, or None when there is none."""
    for summary in _summaries(client, settings.pipeline.name):
        return _parameters(client, summary["PipelineExecutionArn"]).get(DATA_PARAMETER)
    return None


def changed_inputs(earlier: EarlierRun, definition: Mapping[str, Any], parameters: Mapping[str, str]) -> list[str]:
    """Return the names of the steps and parameters that a model depends on and that are not as they were; empty when it would be the same.

    Args:
        earlier: The execution to compare with.
        definition: The pipeline's definition as it is now.
        parameters: What an execution would be started with; the rest has the definition's defaults.
    """
    before = _inputs(earlier.definition, earlier.parameters)
    now = _inputs(definition, parameters)
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _inputs(definition: Mapping[str, Any], parameters: Mapping[str, str]) -> dict[str, object]:
    """Everything a model depends on, by the name of the step or parameter that it belongs to."""
    found: dict[str, object] = {}
    for declared in definition.get("Parameters", ()):
        name = declared["Name"]
        value = parameters.get(name, declared.get("DefaultValue"))
        if name != _CHAMPION_PARAMETER:
            found[name] = float(value) if declared.get("Type") in ("Integer", "Float") and value is not None else value
    for step in definition["Steps"]:
        found |= {part["Name"]: _of_the_model(part) for part in _all_steps(step)}
    return found


def _all_steps(step: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The step, and the steps of its branches by themselves."""
    yield {**step, "Arguments": {name: value for name, value in step.get("Arguments", {}).items() if name not in ("IfSteps", "ElseSteps")}}
    for branch in ("IfSteps", "ElseSteps"):
        for inner in step.get("Arguments", {}).get(branch, ()):
            yield from _all_steps(inner)


def _of_the_model(step: Mapping[str, Any]) -> dict[str, Any]:
    """The step without what is only told about it: words for readers, the commit."""
    kept = {name: value for name, value in step.items() if name not in _FOR_READERS}
    metadata = kept["Arguments"].get("CustomerMetadataProperties")
    if isinstance(metadata, dict):
        told = {name: value for name, value in metadata.items() if name != "git_commit"}
        kept["Arguments"] = {**kept["Arguments"], "CustomerMetadataProperties": told}
    return kept


def _summaries(client: Any, pipeline_name: str) -> Iterator[Mapping[str, Any]]:
    """Executions, newest first; none when there is no such pipeline."""
    from botocore.exceptions import ClientError

    pages = client.get_paginator("list_pipeline_executions").paginate(
        PipelineName=pipeline_name, SortBy="CreationTime", SortOrder="Descending"
    )
    try:
        for page in pages:
            yield from page["PipelineExecutionSummaries"]
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in ("ResourceNotFound", "ValidationException"):
            raise


def _parameters(client: Any, arn: str) -> dict[str, str]:
    pages = client.get_paginator("list_pipeline_parameters_for_execution").paginate(PipelineExecutionArn=arn)
    return {item["Name"]: item["Value"] for page in pages for item in page["PipelineParameters"]}
