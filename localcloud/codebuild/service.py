"""The CodeBuild API, and the way in for CodePipeline."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ClassVar
from uuid import uuid4

from localcloud.codebuild.builds import Builds, describe, short_id
from localcloud.codebuild.errors import INVALID, NOT_FOUND, invalid
from localcloud.codebuild.projects import PROJECT_MEMBERS, check_project, complete_artifacts, completed, refuse_others
from localcloud.codebuild.requests import EnvironmentVariable, S3Object
from localcloud.errors import ServiceError
from localcloud.service import Params, Service

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.database import Document

_PAGE = 100
#: How long an idempotencyToken counts.
_TOKEN_LIFE = timedelta(minutes=5)
#: Members of StartBuild → (what they replace, or None for the member itself).
_OVERRIDES: dict[str, tuple[str, ...]] = {
    "sourceVersion": ("sourceVersion",),
    "secondarySourcesOverride": ("secondarySources",),
    "secondarySourcesVersionOverride": ("secondarySourceVersions",),
    "artifactsOverride": ("artifacts",),
    "secondaryArtifactsOverride": ("secondaryArtifacts",),
    "sourceTypeOverride": ("source", "type"),
    "sourceLocationOverride": ("source", "location"),
    "buildspecOverride": ("source", "buildspec"),
    "environmentTypeOverride": ("environment", "type"),
    "imageOverride": ("environment", "image"),
    "computeTypeOverride": ("environment", "computeType"),
    "privilegedModeOverride": ("environment", "privilegedMode"),
    "imagePullCredentialsTypeOverride": ("environment", "imagePullCredentialsType"),
    "registryCredentialOverride": ("environment", "registryCredential"),
    "cacheOverride": ("cache",),
    "serviceRoleOverride": ("serviceRole",),
    "timeoutInMinutesOverride": ("timeoutInMinutes",),
    "queuedTimeoutInMinutesOverride": ("queuedTimeoutInMinutes",),
    "encryptionKeyOverride": ("encryptionKey",),
    "logsConfigOverride": ("logsConfig",),
}
#: What a build shows of its project.
_BUILD_MEMBERS = (
    "source", "secondarySources", "sourceVersion", "secondarySourceVersions", "cache", "environment", "serviceRole", "timeoutInMinutes", "queuedTimeoutInMinutes",
    "vpcConfig", "encryptionKey",
)  # fmt: skip


class CodeBuildService(Service):
    """AWS CodeBuild.

    Attributes:
        builds: Runs the builds; ``builds.wait(build_id, timeout)`` sleeps until one has ended.
    """

    name: ClassVar[str] = "codebuild"
    validation_code: ClassVar[str] = INVALID

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._projects = cloud.db.table("codebuild.projects")
        self.builds = Builds(cloud)

    def start(self) -> None:
        """End the builds that were running when the process before this one ended."""
        self.builds.start()

    def stop(self) -> None:
        """End the builds."""
        self.builds.stop()

    # Projects.

    def create_project(self, params: Params) -> Params:
        """CreateProject."""
        refuse_others(params, PROJECT_MEMBERS, "CreateProject")
        name = params["name"]
        now = datetime.now(UTC)
        project = completed(params, self._key) | {"arn": self._project_arn(name), "created": now, "lastModified": now}
        with self._projects.lock():
            if name in self._projects:
                raise ServiceError("ResourceAlreadyExistsException", f"Project already exists: {project['arn']}")
            check_project(self.cloud, project)
            self._projects.put(name, project)
        return {"project": describe(project)}

    def update_project(self, params: Params) -> Params:
        """UpdateProject."""
        refuse_others(params, PROJECT_MEMBERS, "UpdateProject")
        with self._projects.lock():
            old = self._project(params["name"])
            merged = old | {member: value for member, value in params.items() if value is not None}
            project = completed({member: value for member, value in merged.items() if value != ""}, self._key)
            project["lastModified"] = datetime.now(UTC)
            check_project(self.cloud, project)
            self._projects.put(project["name"], project)
        return {"project": describe(project)}

    def delete_project(self, params: Params) -> None:
        """DeleteProject; one that does not exist is deleted as well."""
        self._projects.delete(params["name"])

    def batch_get_projects(self, params: Params) -> Params:
        """BatchGetProjects, by name or ARN."""
        found = {name: self._projects.get(name.rpartition("/")[2]) for name in params["names"]}
        return {
            "projects": [describe(project) for project in found.values() if project],
            "projectsNotFound": [name for name, project in found.items() if not project],
        }

    def list_projects(self, params: Params) -> Params:
        """ListProjects."""
        member = {"CREATED_TIME": "created", "LAST_MODIFIED_TIME": "lastModified"}.get(params.get("sortBy") or "NAME", "name")
        projects = sorted(self._projects.values(), key=lambda project: (project[member], project["name"]))
        names = [project["name"] for project in projects]
        return _page(names, params, "projects", default="ASCENDING")

    # Builds.

    def start_build(self, params: Params) -> Params:
        """StartBuild."""
        refuse_others(
            params, (*_OVERRIDES, "projectName", "environmentVariablesOverride", "idempotencyToken", "gitCloneDepthOverride"), "StartBuild"
        )
        project = self._project(params["projectName"])
        token = params.get("idempotencyToken")
        request = {
            member: value
            for member, value in params.items()
            if member in (*_OVERRIDES, "projectName", "environmentVariablesOverride") and value is not None
        }
        with self._projects.lock():
            earlier = self._with_token(token, request) if token else None
            if earlier is not None:
                return {"build": describe(earlier)}
            effective = self._effective(project, request)
            if effective["source"]["type"] == "CODEPIPELINE":
                raise invalid("Build cannot be started: a project whose source is of type CODEPIPELINE is built by its pipeline only")
            artifacts = _targets(effective)
            public = (
                {"artifacts": {"location": ""}}
                if effective["artifacts"]["type"] == "NO_ARTIFACTS"
                else {"artifacts": _shown(effective["artifacts"])}
            )
            return {"build": self._launch(effective, public | {"_artifacts": artifacts, "_request": request, "_token": token})}

    def retry_build(self, params: Params) -> Params:
        """RetryBuild: a new build with what the earlier one was asked for."""
        if not params.get("id"):
            raise invalid("id must be set")
        earlier = self._build(params["id"])
        if "_request" not in earlier:
            raise invalid("A build that was started by CodePipeline cannot be retried; retry its pipeline's stage")
        if not earlier["buildComplete"]:
            raise invalid(f"Build {earlier['id']} is in progress and cannot be retried")
        return self.start_build(earlier["_request"] | {"idempotencyToken": params.get("idempotencyToken")})

    def stop_build(self, params: Params) -> Params:
        """StopBuild."""
        return {"build": self.builds.stop_build(params["id"])}

    def batch_get_builds(self, params: Params) -> Params:
        """BatchGetBuilds, by id or ARN."""
        found = {build_id: self.builds.get(build_id) for build_id in params["ids"]}
        return {
            "builds": [build for build in found.values() if build],
            "buildsNotFound": [build_id for build_id, build in found.items() if not build],
        }

    def list_builds(self, params: Params) -> Params:
        """ListBuilds."""
        return _page(self._ids(lambda _: True), params, "ids")

    def list_builds_for_project(self, params: Params) -> Params:
        """ListBuildsForProject."""
        name = params["projectName"]
        self._project(name)
        return _page(self._ids(lambda build: bool(build["projectName"] == name)), params, "ids")

    def batch_delete_builds(self, params: Params) -> Params:
        """BatchDeleteBuilds; builds that are under way stay."""
        deleted, kept = [], []
        for build_id in params["ids"]:
            build = self.builds.table.get(short_id(build_id))
            if build is None:
                kept.append({"id": build_id, "statusCode": "BUILD_NOT_FOUND"})
            elif not build["buildComplete"]:
                kept.append({"id": build_id, "statusCode": "BUILD_IN_PROGRESS"})
            else:
                self.builds.table.delete(build["id"])
                deleted.append(build["arn"])
        return {"buildsDeleted": deleted, "buildsNotDeleted": kept}

    # For CodePipeline.

    def start_pipeline_build(
        self,
        project: str,
        *,
        source: S3Object,
        secondary_sources: Mapping[str, S3Object],
        artifacts: Mapping[str, S3Object],
        variables: Sequence[EnvironmentVariable],
        initiator: str,
        source_version: str,
    ) -> str:
        """Start a build of a project whose source and artifacts are of type CODEPIPELINE; return its id.

        Args:
            project: The project's name.
            source: The zip of the primary source.
            secondary_sources: The other input artifacts' zips by name; the build finds them at CODEBUILD_SRC_DIR_<name>.
            artifacts: Where the zip of each output artifact goes, by name: a single one is the buildspec's `artifacts`, of several each is one of its
                `secondary-artifacts`.
            variables: They win over the project's.
            initiator: ``codepipeline/<pipeline>``.
            source_version: The revision of the primary source, e.g. a commit; empty when there is none.

        Raises:
            ServiceError: There is no such project, or it is not made for pipelines.
        """
        found = self._project(project)
        if found["source"]["type"] != "CODEPIPELINE":
            raise invalid(
                f"Project {project} cannot be built by a pipeline: its source is of type {found['source']['type']}, not CODEPIPELINE"
            )
        with self._projects.lock():
            effective = self._effective(found, {"environmentVariablesOverride": [asdict(variable) for variable in variables]})
            effective["secondarySources"] = [{"type": "CODEPIPELINE", "sourceIdentifier": name} for name in secondary_sources]
            single = len(artifacts) == 1
            targets = [
                {"type": "CODEPIPELINE", "artifactIdentifier": "" if single else name, "bucket": target.bucket, "key": target.key}
                | ({"only": name} if single else {})
                for name, target in artifacts.items()
            ]
            first = next(iter(artifacts.values())) if single else None
            own: Document = {
                "_artifacts": targets,
                "_sources": {name: asdict(where) for name, where in {"": source, **secondary_sources}.items()},
                "artifacts": {"location": first.arn if first else "", "encryptionDisabled": False},
                "sourceVersion": source.arn,
            }
            if source_version:
                own["resolvedSourceVersion"] = source_version
            build = self._launch(effective, own, initiator)
        return str(build["id"])

    def find(self, build_id: str) -> Document:
        """Return what BatchGetBuilds returns for a build.

        Raises:
            ServiceError: There is no such build.
        """
        return describe(self._build(build_id))

    # What operations share.

    @property
    def _key(self) -> str:
        return self.cloud.arn("kms", "alias/aws/s3")

    def _project_arn(self, name: str) -> str:
        return self.cloud.arn("codebuild", f"project/{name}")

    def _project(self, name: str) -> Document:
        project = self._projects.get(name.rpartition("/")[2])
        if project is None:
            raise ServiceError(NOT_FOUND, f"Project cannot be found: {self._project_arn(name.rpartition('/')[2])}")
        return project

    def _build(self, build_id: str) -> Document:
        build = self.builds.table.get(short_id(build_id))
        if build is None:
            raise ServiceError(NOT_FOUND, f"Build {build_id} not found.")
        return build

    def _ids(self, wanted: Callable[[Document], bool]) -> list[str]:
        found = [build for build in self.builds.table.values() if wanted(build)]
        return [build["id"] for build in sorted(found, key=lambda build: (build["startTime"], build["id"]))]

    def _with_token(self, token: str, request: Params) -> Document | None:
        """Return the build that was started with an idempotencyToken a short while ago."""
        since = datetime.now(UTC) - _TOKEN_LIFE
        for build in self.builds.table.values():
            if build.get("_token") == token and build["startTime"] > since:
                if build["_request"] != request:
                    raise invalid("The idempotency token was used before with other parameters")
                return build
        return None

    def _effective(self, project: Document, request: Params) -> Document:
        """Return a project with the overrides of a request, checked as a project is."""
        effective: Document = {**project, "source": dict(project["source"]), "environment": dict(project["environment"])}
        for member, path in _OVERRIDES.items():
            value = request.get(member)
            if value is not None:
                (effective if len(path) == 1 else effective[path[0]])[path[-1]] = value
        names = {variable["name"] for variable in request.get("environmentVariablesOverride") or ()}
        kept = [variable for variable in effective["environment"]["environmentVariables"] if variable["name"] not in names]
        effective["environment"]["environmentVariables"] = [*kept, *(request.get("environmentVariablesOverride") or ())]
        effective = completed(effective, self._key)
        effective["secondaryArtifacts"] = [
            complete_artifacts(item, item.get("artifactIdentifier", "")) for item in effective["secondaryArtifacts"]
        ]
        check_project(self.cloud, effective)
        limit = project.get("concurrentBuildLimit") or 0
        if limit > 0 and self.builds.running(project["name"]) >= limit:
            raise ServiceError("AccountLimitExceededException", f"Cannot have more than {limit} builds in queue or running for the project")
        return effective

    def _launch(self, effective: Document, own: Document, initiator: str = "root") -> Document:
        name, uuid, now = effective["name"], str(uuid4()), datetime.now(UTC)
        number = (self._project(name).get("_builds") or 0) + 1
        self._projects.update(name, _builds=number)
        build_id = f"{name}:{uuid}"
        document: Document = {
            **{member: effective[member] for member in _BUILD_MEMBERS if member in effective},
            "id": build_id,
            "arn": self.cloud.arn("codebuild", f"build/{build_id}"),
            "buildNumber": number,
            "startTime": now,
            "currentPhase": "QUEUED",
            "buildStatus": "IN_PROGRESS",
            "projectName": name,
            "phases": [
                {"phaseType": "SUBMITTED", "phaseStatus": "SUCCEEDED", "startTime": now, "endTime": now, "durationInSeconds": 0},
                {"phaseType": "QUEUED", "startTime": now},
            ],
            "logs": self._logs(effective, uuid),
            "buildComplete": False,
            "initiator": initiator,
            **own,
        }
        return describe(self.builds.launch(document))

    def _logs(self, effective: Document, uuid: str) -> Params:
        settings = effective.get("logsConfig") or {}
        logs = settings.get("cloudWatchLogs") or {"status": "ENABLED"}
        if logs["status"] == "DISABLED":
            return {"cloudWatchLogs": {"status": "DISABLED"}, "s3Logs": {"status": "DISABLED"}}
        group = logs.get("groupName") or f"/aws/codebuild/{effective['name']}"
        stream = f"{logs['streamName']}/{uuid}" if logs.get("streamName") else uuid
        region = self.cloud.settings.region
        return {
            "groupName": group,
            "streamName": stream,
            "deepLink": f"https://console.aws.amazon.com/cloudwatch/home?region={region}#logEvent:group={group};stream={stream}",
            "cloudWatchLogsArn": self.cloud.arn("logs", f"log-group:{group}:log-stream:{stream}"),
            "cloudWatchLogs": logs,
            "s3Logs": {"status": "DISABLED"},
        }


def _targets(effective: Document) -> list[Params]:
    """Return where a build's artifacts go, the primary one under the identifier ""."""
    primary = [] if effective["artifacts"]["type"] == "NO_ARTIFACTS" else [effective["artifacts"] | {"artifactIdentifier": ""}]
    return [*primary, *effective["secondaryArtifacts"]]


def _shown(artifacts: Params) -> Params:
    return {
        member: artifacts[member]
        for member in ("overrideArtifactName", "encryptionDisabled", "artifactIdentifier", "bucketOwnerAccess")
        if member in artifacts
    } | {"location": f"arn:aws:s3:::{artifacts['location'].removeprefix('arn:aws:s3:::')}"}


def _page(items: list[str], params: Params, member: str, default: str = "DESCENDING") -> Params:
    """Return one page of ascending items in the order that is asked for."""
    if (params.get("sortOrder") or default) == "DESCENDING":
        items = items[::-1]
    token = params.get("nextToken")
    try:
        start = int(base64.urlsafe_b64decode(token)) if token else 0
    except (binascii.Error, ValueError) as error:
        raise invalid("The nextToken is not valid") from error
    end = start + _PAGE
    rest = {"nextToken": base64.urlsafe_b64encode(str(end).encode()).decode()} if end < len(items) else {}
    return {member: items[start:end]} | rest
