"""Build and Test: CodeBuild.

https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-CodeBuild.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from localcloud.codebuild.requests import EnvironmentVariable, S3Object
from localcloud.codepipeline.actions.action import Action, ActionFailed, Answer, Job, Kind, Started, State, Succeeded
from localcloud.codepipeline.artifacts import Artifact
from localcloud.errors import ServiceError

if TYPE_CHECKING:
    from localcloud.codebuild.service import CodeBuildService

#: The longest that CodeBuild lets a build run.
_TIMEOUT_MINUTES = 36 * 60
_UNSUPPORTED = ("BatchEnabled", "CombineArtifacts")


class CodeBuild(Action):
    """Runs a build, with the input artifacts as its sources."""

    kinds: ClassVar[tuple[Kind, ...]] = tuple(
        Kind(
            category,
            "CodeBuild",
            required=frozenset(("ProjectName",)),
            optional=frozenset(("PrimarySource", "EnvironmentVariables", *_UNSUPPORTED)),
            inputs=(1, 5),
            outputs=(0, 5),
            timeout_minutes=_TIMEOUT_MINUTES,
        )
        for category in ("Build", "Test")
    )

    def validate(self, configuration: Mapping[str, str]) -> str | None:
        """Check the variables, and that no batch is asked for."""
        for name in _UNSUPPORTED:
            if configuration.get(name, "false") != "false":
                return f"{name} is not supported by localcloud"
        return _variables(configuration)[1]

    def start(self, job: Job) -> Started:
        """Start the build."""
        primary = job.configuration.get("PrimarySource") or next(iter(job.inputs))
        if primary not in job.inputs:
            raise ActionFailed("ConfigurationError", f"PrimarySource '{primary}' is not an input artifact of the action {job.action}")
        variables, problem = _variables(job.configuration)
        if problem:
            raise ActionFailed("ConfigurationError", problem)
        project = job.configuration["ProjectName"]
        for operation in ("StartBuild", "BatchGetBuilds"):
            job.authorize("codebuild", operation, {"projectName": project})
        try:
            build = _service(job).start_pipeline_build(
                project,
                source=_object(job.inputs[primary]),
                secondary_sources={name: _object(artifact) for name, artifact in job.inputs.items() if name != primary},
                artifacts={name: _object(artifact) for name, artifact in job.outputs.items()},
                variables=variables,
                initiator=f"codepipeline/{job.pipeline}",
                source_version=job.source_revisions.get(primary, ""),
            )
        except ServiceError as error:
            message = f"Error calling startBuild: {error.message} (Service: AWSCodeBuild; Status Code: 400; Error Code: {error.code})"
            raise ActionFailed("JobFailed", message) from error
        return self._progress(job, build)

    def check(self, job: Job, state: State, inbox: Sequence[Answer]) -> Succeeded | None:
        """Ask how the build is."""
        build = _find(job, state["build"])
        status = build["buildStatus"]
        if status == "IN_PROGRESS":
            return None
        if status != "SUCCEEDED":
            raise ActionFailed("JobFailed", _failure(build, status))
        exported = {variable["name"]: variable["value"] for variable in build.get("exportedEnvironmentVariables", [])}
        return Succeeded(exported, log_stream=build.get("logs", {}).get("cloudWatchLogsArn"))

    def stop(self, job: Job, state: State) -> None:
        """Stop the build."""
        job.authorize("codebuild", "StopBuild", {"id": state["build"]})
        _service(job).stop_build({"id": state["build"]})

    def _progress(self, job: Job, build_id: str) -> Started:
        build = _find(job, build_id)
        region = job.cloud.settings.region
        url = f"https://console.aws.amazon.com/codebuild/home?region={region}#/builds/{build_id}/view/new"
        return Started({"build": build_id}, build_id, url, log_stream=build.get("logs", {}).get("cloudWatchLogsArn"))


def _service(job: Job) -> CodeBuildService:
    builds: Any = job.cloud.services["codebuild"]
    service: CodeBuildService = builds
    return service


def _object(artifact: Artifact) -> S3Object:
    return S3Object(artifact.bucket, artifact.key)


def _find(job: Job, build_id: str) -> dict[str, Any]:
    try:
        build = _service(job).find(build_id)
    except ServiceError as error:
        raise ActionFailed("JobFailed", f"The build {build_id} does not exist any more") from error
    return build


def _variables(configuration: Mapping[str, str]) -> tuple[list[EnvironmentVariable], str | None]:
    """Return the EnvironmentVariables of an action, or what is wrong with them."""
    text = configuration.get("EnvironmentVariables", "[]")
    try:
        variables = json.loads(text)
    except ValueError as error:
        return [], f"EnvironmentVariables is not valid JSON: {error}"
    good = isinstance(variables, list) and all(
        isinstance(one, dict)
        and {"name", "value"} <= set(one) <= {"name", "value", "type"}
        and all(isinstance(value, str) for value in one.values())
        for one in variables
    )
    if not good:
        return [], 'EnvironmentVariables must be a JSON list of {"name": "…", "value": "…", "type": "PLAINTEXT"}'
    return [EnvironmentVariable(**one) for one in variables], None


def _failure(build: dict[str, Any], status: str) -> str:
    """Return why a build failed, in CodePipeline's words: the first phase that failed has the reason."""
    message = f"Build terminated with state: {status}"
    for phase in build.get("phases", []):
        if phase.get("phaseStatus") in ("FAILED", "FAULT", "TIMED_OUT", "CLIENT_ERROR", "STOPPED"):
            context: dict[str, str] = next((one for one in phase.get("contexts", []) if one.get("message") or one.get("statusCode")), {})
            return f"{message}. Phase: {phase['phaseType']}, Code: {context.get('statusCode', '')}, Message: {context.get('message', '')}"
    return message
