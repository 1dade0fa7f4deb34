"""Projects: what CreateProject and UpdateProject take, and what a build has of them.

Source: https://docs.aws.amazon.com/codebuild/latest/APIReference/API_CreateProject.html.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from localcloud.codebuild.builds import PRINCIPAL
from localcloud.codebuild.buildspec import VARIABLE
from localcloud.codebuild.errors import invalid, unsupported
from localcloud.codebuild.sources import is_inline, parse_location
from localcloud.iam.trust import can_assume
from localcloud.service import Params

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.database import Document

#: Members that have their effect here, or none that a caller could miss: builds have no image, no network of their own and no cache.
PROJECT_MEMBERS = (
    "name", "description", "source", "secondarySources", "sourceVersion", "secondarySourceVersions", "artifacts", "secondaryArtifacts", "cache", "environment",
    "serviceRole", "timeoutInMinutes", "queuedTimeoutInMinutes", "encryptionKey", "tags", "vpcConfig", "logsConfig", "concurrentBuildLimit",
)  # fmt: skip
_SOURCE_MEMBERS = ("type", "location", "buildspec", "sourceIdentifier", "insecureSsl", "gitCloneDepth")
_ENVIRONMENT_MEMBERS = (
    "type", "image", "computeType", "computeConfiguration", "environmentVariables", "privilegedMode", "registryCredential", "imagePullCredentialsType",
)  # fmt: skip
_SOURCES = ("S3", "CODEPIPELINE", "NO_SOURCE")
_ENVIRONMENTS = ("LINUX_CONTAINER", "LINUX_GPU_CONTAINER", "ARM_CONTAINER")
_TIMEOUT, _QUEUED_TIMEOUT = 60, 480


def refuse_others(params: Mapping[str, Any], supported: Collection[str], where: str) -> None:
    """Refuse a structure that sets anything but *supported* members (null, false, zero and empty count as not set), so that nothing is ignored in silence."""
    for member, value in params.items():
        if member not in supported and value not in (None, False, 0, "", [], {}):
            raise unsupported(f"{where}: {member}")


def check_project(cloud: Cloud, project: Document) -> None:
    """Refuse a project (or what a build would have of one) that CodeBuild would refuse, or that cannot be built here.

    Raises:
        ServiceError: What is wrong with it.
    """
    source, artifacts = project["source"], project["artifacts"]
    _check_source(source, "source")
    for other in project.get("secondarySources", ()):
        _check_source(other, "secondarySources")
    _check_identifiers(project.get("secondarySources", ()), "sourceIdentifier", "Source")
    _check_identifiers(project.get("secondaryArtifacts", ()), "artifactIdentifier", "Artifact")
    for target in (artifacts, *project.get("secondaryArtifacts", ())):
        if target["type"] == "S3" and not target.get("location"):
            raise invalid("Invalid artifacts: location must be set for artifacts of type S3")
        refuse_others({"bucketOwnerAccess": target.get("bucketOwnerAccess", "NONE") != "NONE"}, (), "artifacts")
    if (source["type"] == "CODEPIPELINE") != (artifacts["type"] == "CODEPIPELINE"):
        raise invalid("Invalid artifacts: source and artifacts must both be of type CODEPIPELINE, or neither")
    if source["type"] == "NO_SOURCE" and not source.get("buildspec"):
        raise invalid("Invalid project source: buildspec must be set for source type NO_SOURCE")
    if source["type"] == "NO_SOURCE" and not is_inline(source["buildspec"]) and not source["buildspec"].startswith("arn:"):
        raise invalid("Invalid project source: buildspec must be inline, or the ARN of an object, for source type NO_SOURCE")
    _check_environment(project["environment"])
    logs = project.get("logsConfig") or {}
    if (logs.get("s3Logs") or {}).get("status") == "ENABLED":
        raise unsupported("logsConfig: s3Logs")
    if not can_assume(cloud, project["serviceRole"], PRINCIPAL, cloud.arn("codebuild", f"project/{project['name']}")):
        raise invalid(
            f"CodeBuild is not authorized to perform: sts:AssumeRole on {project['serviceRole']}. The role must exist, and its trust policy must let {PRINCIPAL} "
            "assume it."
        )


def _check_source(source: Params, where: str) -> None:
    if source["type"] not in _SOURCES:
        raise unsupported(f"{where}: type {source['type']}")
    refuse_others(source, _SOURCE_MEMBERS, where)
    if source["type"] == "S3":
        parse_location(source.get("location") or "")


def _check_identifiers(items: Collection[Params], member: str, what: str) -> None:
    names = [item.get(member) or "" for item in items]
    for name in names:
        if not VARIABLE.fullmatch(name) or names.count(name) > 1:
            raise invalid(f"{what} identifier '{name}' must be set, unique, and made of letters, digits and underscores only")


def _check_environment(environment: Params) -> None:
    if environment["type"] not in _ENVIRONMENTS:
        raise unsupported(f"environment: type {environment['type']}")
    refuse_others(environment, _ENVIRONMENT_MEMBERS, "environment")
    for variable in environment.get("environmentVariables") or ():
        if not VARIABLE.fullmatch(variable["name"]):
            raise invalid(
                f"Environment variable name '{variable['name']}' must be made of letters, digits and underscores only, and begin with no digit"
            )


def completed(project: Document, key: str) -> Document:
    """Return a project with the values that CodeBuild gives to what was not set.

    Args:
        project: The request's members.
        key: The ARN of the account's key for S3.
    """
    environment: Params = {"environmentVariables": [], "privilegedMode": False, "imagePullCredentialsType": "CODEBUILD"} | _given(
        project["environment"]
    )
    environment["environmentVariables"] = [{"type": "PLAINTEXT"} | _given(variable) for variable in environment["environmentVariables"]]
    return {
        "cache": {"type": "NO_CACHE"},
        "timeoutInMinutes": _TIMEOUT,
        "queuedTimeoutInMinutes": _QUEUED_TIMEOUT,
        "encryptionKey": key,
        "tags": [],
        "badge": {"badgeEnabled": False},
        "secondarySources": [],
        "secondaryArtifacts": [],
        **_given(project),
        "source": {"insecureSsl": False} | _given(project["source"]),
        "artifacts": complete_artifacts(project["artifacts"], project["name"]),
        "environment": environment,
    }


def complete_artifacts(artifacts: Params, project: str) -> Params:
    """Return artifacts with the values that CodeBuild gives to what was not set."""
    given = _given(artifacts)
    if given["type"] == "NO_ARTIFACTS":
        return given
    if given["type"] == "CODEPIPELINE":
        return {"name": project, "packaging": "NONE", "encryptionDisabled": False} | given
    return {"name": project, "packaging": "NONE", "namespaceType": "NONE", "encryptionDisabled": False} | given


def _given(params: Params) -> Params:
    return {member: value for member, value in params.items() if value is not None}
