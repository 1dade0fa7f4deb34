"""What a pipeline's declaration must be, beyond its shape, and how the parts of one are found.

https://docs.aws.amazon.com/codepipeline/latest/userguide/reference-pipeline-structure.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from localcloud.codepipeline.actions.registry import KINDS, find_kind
from localcloud.codepipeline.variables import EXECUTION_NAMESPACE, PIPELINE_NAMESPACE, references
from localcloud.errors import ServiceError, not_supported

Declaration = dict[str, Any]
ActionDeclaration = dict[str, Any]

_STRUCTURE, _ACTION, _STAGE = "InvalidStructureException", "InvalidActionDeclarationException", "InvalidStageDeclarationException"
_REFUSED_OF_STAGE = ("blockers", "beforeEntry", "onSuccess", "onFailure")
_REFUSED_OF_ACTION = ("commands", "outputVariables", "environmentVariables")
_MAX_STAGES, _MAX_ACTIONS = 50, 50


def check_declaration(pipeline: Declaration, region: str) -> None:
    """Check a pipeline at create and update.

    Raises:
        ServiceError: AWS would refuse it, or it has something that is not played.
    """
    _check_pipeline(pipeline, region)
    stages = pipeline["stages"]
    if len(stages) < 2:
        raise ServiceError(_STRUCTURE, f"Pipeline has only {len(stages)} stage(s). There should be a minimum of 2 stages in a pipeline.")
    if len(stages) > _MAX_STAGES:
        raise ServiceError("LimitExceededException", f"Pipeline has {len(stages)} stages; a pipeline can have at most {_MAX_STAGES}")
    _check_unique("stage", [stage["name"] for stage in stages], _STRUCTURE)
    for index, stage in enumerate(stages):
        for member in _REFUSED_OF_STAGE:
            if stage.get(member):
                raise not_supported(f"'{member}' of the stage '{stage['name']}'")
        if not 1 <= len(stage["actions"]) <= _MAX_ACTIONS:
            raise ServiceError(_STAGE, f"Stage '{stage['name']}' must have between 1 and {_MAX_ACTIONS} actions")
        _check_unique(f"action of the stage '{stage['name']}'", [action["name"] for action in stage["actions"]], _STRUCTURE)
        for action in stage["actions"]:
            source = action["actionTypeId"]["category"] == "Source"
            if index == 0 and not source:
                raise ServiceError(_STRUCTURE, "Pipeline should start with a stage that only contains source actions")
            if index > 0 and source:
                raise ServiceError(
                    _STRUCTURE, f"Only the first stage can contain source actions; '{action['name']}' is in '{stage['name']}'"
                )
            _check_action(action, region)
    _check_artifacts(stages)
    _check_variables(pipeline)
    _check_triggers(pipeline)


def ordered_actions(stage: Mapping[str, Any]) -> Iterator[list[ActionDeclaration]]:
    """Yield a stage's actions in groups that run at once, in the order of their runOrder."""
    orders = sorted({action.get("runOrder", 1) for action in stage["actions"]})
    for order in orders:
        yield [action for action in stage["actions"] if action.get("runOrder", 1) == order]


def source_actions(pipeline: Declaration) -> list[ActionDeclaration]:
    """Return the actions of the first stage."""
    actions: list[ActionDeclaration] = pipeline["stages"][0]["actions"]
    return actions


def artifact_store(pipeline: Declaration, region: str) -> dict[str, Any]:
    """Return the artifact store of a region."""
    store: dict[str, Any] = pipeline.get("artifactStore") or pipeline["artifactStores"][region]
    return store


def normalized(pipeline: Declaration, version: int) -> Declaration:
    """Return a declaration as GetPipeline shows it: defaults filled in."""
    stages = [
        {
            **stage,
            "actions": [
                {"runOrder": 1, "configuration": {}, "inputArtifacts": [], "outputArtifacts": [], **action} for action in stage["actions"]
            ],
        }
        for stage in pipeline["stages"]
    ]
    return {"executionMode": "SUPERSEDED", "pipelineType": "V1", **pipeline, "stages": stages, "version": version}


def _check_pipeline(pipeline: Declaration, region: str) -> None:
    if bool(pipeline.get("artifactStore")) == bool(pipeline.get("artifactStores")):
        raise ServiceError(_STRUCTURE, "Pipeline must have either artifactStore or artifactStores, and not both")
    if pipeline.get("artifactStores") and set(pipeline["artifactStores"]) != {region}:
        raise not_supported(f"artifactStores of regions other than {region}")
    if pipeline.get("pipelineType", "V1") == "V1":
        for member in ("variables", "triggers"):
            if pipeline.get(member):
                raise ServiceError(_STRUCTURE, f"Pipeline type V1 does not support {member}; set pipelineType to V2")
        if pipeline.get("executionMode", "SUPERSEDED") != "SUPERSEDED":
            raise ServiceError(
                _STRUCTURE, f"Pipeline type V1 does not support the execution mode {pipeline['executionMode']}; set pipelineType to V2"
            )
    if pipeline.get("executionMode") == "PARALLEL":
        raise not_supported("executionMode PARALLEL")
    _check_unique("variable", [variable["name"] for variable in pipeline.get("variables", [])], _STRUCTURE)


def _check_action(action: ActionDeclaration, region: str) -> None:
    name, action_type = action["name"], action["actionTypeId"]
    for member in _REFUSED_OF_ACTION:
        if action.get(member):
            raise not_supported(f"'{member}' of the action '{name}'")
    if any(artifact.get("files") for artifact in action.get("outputArtifacts", [])):
        raise not_supported(f"'files' of the output artifacts of the action '{name}'")
    if action.get("region", region) != region:
        raise not_supported(f"The region {action['region']} of the action '{name}' (this is {region})")
    found = find_kind(action_type)
    if found is None:
        wanted = "ActionType (Category: '{category}', Provider: '{provider}', Owner: '{owner}', Version: '{version}')".format(**action_type)
        supported = ", ".join(f"{category} {provider}" for category, provider in sorted(KINDS))
        raise not_supported(f"{wanted} in action '{name}' (supported, with owner AWS and version 1: {supported})")
    kind, player = found
    configuration = action.get("configuration", {})
    for key in sorted(kind.required):
        if not configuration.get(key):
            raise ServiceError(_ACTION, f"Action configuration for action '{name}' is missing required configuration '{key}'")
    for key in configuration:
        if key not in kind.required | kind.optional:
            raise ServiceError(_ACTION, f"Action configuration for action '{name}' contains unknown configuration '{key}'")
    problem = player.validate(configuration)
    if problem:
        raise (
            not_supported(problem.partition(" is not supported")[0], _ACTION)
            if "not supported by" in problem
            else ServiceError(_ACTION, f"Action configuration for action '{name}' is not valid: {problem}")
        )
    for member, what, (fewest, most) in (("inputArtifacts", "input", kind.inputs), ("outputArtifacts", "output", kind.outputs)):
        count = len(action.get(member, []))
        if not fewest <= count <= most:
            raise ServiceError(
                _ACTION, f"Action '{name}' has {count} {what} artifacts; {kind.category} {kind.provider} takes between {fewest} and {most}"
            )


def _check_artifacts(stages: list[dict[str, Any]]) -> None:
    made: set[str] = set()
    for stage in stages:
        for group in ordered_actions(stage):
            for action in group:
                for artifact in action.get("inputArtifacts", []):
                    if artifact["name"] not in made:
                        raise ServiceError(
                            _STRUCTURE,
                            f"Input Artifact Bundle {artifact['name']} in action {action['name']} is not declared as an output artifact of an earlier action",
                        )
            for action in group:
                for artifact in action.get("outputArtifacts", []):
                    if artifact["name"] in made:
                        raise ServiceError(
                            _STRUCTURE,
                            f"Output Artifact Bundle name must be unique within the pipeline. {artifact['name']} has been used more than once.",
                        )
                    made.add(artifact["name"])


def _check_variables(pipeline: Declaration) -> None:
    declared = {variable["name"] for variable in pipeline.get("variables", [])}
    known = {EXECUTION_NAMESPACE, PIPELINE_NAMESPACE}
    for stage in pipeline["stages"]:
        for group in ordered_actions(stage):
            for action in group:
                for key, text in action.get("configuration", {}).items():
                    for reference, namespace, variable in references(text):
                        where = f"StageName=[{stage['name']}], ActionName=[{action['name']}], ActionConfigurationKey=[{key}], VariableReferenceText=[{reference}]"
                        if namespace not in known:
                            raise ServiceError(
                                _ACTION,
                                f"The following pipeline execution variables are referencing a namespace that does not exist. {where}",
                            )
                        wrong = (namespace == PIPELINE_NAMESPACE and variable not in declared) or (
                            namespace == EXECUTION_NAMESPACE and variable != "PipelineExecutionId"
                        )
                        if wrong:
                            raise ServiceError(_ACTION, f"The following pipeline variables are not declared in the pipeline. {where}")
            for action in group:
                own: str | None = action.get("namespace")
                if own in known:
                    raise ServiceError(_ACTION, f"Namespace '{own}' of the action '{action['name']}' is already in use")
                if own:
                    known.add(own)


def _check_triggers(pipeline: Declaration) -> None:
    connected = {action["name"] for action in source_actions(pipeline) if action["actionTypeId"]["provider"] == "CodeStarSourceConnection"}
    for trigger in pipeline.get("triggers", []):
        configuration = trigger["gitConfiguration"]
        name = configuration["sourceActionName"]
        if name not in connected:
            raise ServiceError(_STRUCTURE, f"The trigger's sourceActionName '{name}' is not a source action with a connection")
        if configuration.get("pullRequest"):
            raise not_supported(f"'pullRequest' of the trigger for the action '{name}'")
        for one in configuration.get("push", []):
            if "tags" in one and ("branches" in one or "filePaths" in one):
                raise ServiceError(
                    _STRUCTURE, f"The trigger for the action '{name}' cannot filter on tags and on branches or file paths at once"
                )
            if "filePaths" in one and "branches" not in one:
                raise ServiceError(
                    _STRUCTURE, f"The trigger for the action '{name}' filters on file paths, so it must filter on branches too"
                )
    _check_unique(
        "trigger for the source action",
        [trigger["gitConfiguration"]["sourceActionName"] for trigger in pipeline.get("triggers", [])],
        _STRUCTURE,
    )


def _check_unique(what: str, names: list[str], code: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ServiceError(code, f"The name of each {what} must be unique; '{twice[0]}' is used more than once")
