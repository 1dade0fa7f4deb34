"""Pipelines on a region, repositories to push to, and a CodeBuild whose builds end as a test says."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from helpers_roles import mighty_role
from localcloud.errors import ServiceError

TRUSTED = ["codepipeline.amazonaws.com", "cloudformation.amazonaws.com", "lambda.amazonaws.com", "events.amazonaws.com"]
TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": TRUSTED}, "Action": "sts:AssumeRole"}]}
ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
REPOSITORY = "team/app"


def zipped(**files: str) -> bytes:
    """Return a zip of files; ``__`` in a name stands for ``.``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


def unzipped(body: bytes) -> dict[str, str]:
    """Return the files of a zip."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist() if not name.endswith("/")}


def action(name: str, kind: str, configuration: Mapping[str, str] | None = None, **members: Any) -> dict[str, Any]:
    """Return an action; *kind* is ``Category/Provider``, and ``inputs`` and ``outputs`` are names of artifacts."""
    category, provider = kind.split("/")
    artifacts = {
        f"{what}Artifacts": [{"name": artifact} for artifact in members.pop(f"{what}s")]
        for what in ("input", "output")
        if f"{what}s" in members
    }
    return {
        "name": name,
        "actionTypeId": {"category": category, "owner": "AWS", "provider": provider, "version": "1"},
        "configuration": dict(configuration or {}),
        **artifacts,
        **members,
    }


def stage(name: str, *actions: dict[str, Any]) -> dict[str, Any]:
    """Return a stage."""
    return {"name": name, "actions": list(actions)}


class Builds:
    """Stands in for CodeBuild: each build runs until `end` is called for its project, or ends at once when `end` was called before."""

    def tags_of(self, arn: str) -> dict[str, str]:
        """No build has tags."""
        return {}

    def __init__(self, announce: Callable[[], None]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.stopped: list[str] = []
        self._builds: dict[str, dict[str, Any]] = {}
        self._announce = announce

    def start_pipeline_build(self, project: str, **request: Any) -> str:
        """Start a build."""
        if project == "missing":
            raise ServiceError("ResourceNotFoundException", f"Project cannot be found: {project}")
        identifier = f"{project}:{len(self.requests)}"
        self.requests.append({"project": project, **request})
        self._builds[identifier] = {"id": identifier, "buildStatus": "IN_PROGRESS", "phases": []}
        return identifier

    def find(self, identifier: str) -> dict[str, Any]:
        """Return a build."""
        return self._builds[identifier]

    def running(self) -> list[str]:
        """Return the builds that run."""
        return [identifier for identifier, build in self._builds.items() if build["buildStatus"] == "IN_PROGRESS"]

    def end(self, identifier: str, status: str = "SUCCEEDED", **members: Any) -> None:
        """End a build."""
        self._builds[identifier] |= {"buildStatus": status, **members}
        self._announce()

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


class Workshop:
    """What a test of pipelines needs of a region.

    Attributes:
        role: A role that may do everything and that CodePipeline and CloudFormation may assume.
        store: The artifact store's bucket.
        builds: The stand-in for CodeBuild, once `fake_builds` was called.
    """

    def __init__(self, region: Any) -> None:
        self.region = region
        self.cloud = region.cloud
        self._names = itertools.count()
        iam = self.client("iam")
        self.role: str = mighty_role(iam, "pipelines", TRUST)
        iam.put_role_policy(RoleName="pipelines", PolicyName="all", PolicyDocument=json.dumps(ALL))
        self.store = self.bucket()

    def client(self, service: str) -> Any:
        """Return a boto3 client."""
        return self.region.client(service)

    def name(self, prefix: str) -> str:
        """Return a name that nothing has yet."""
        return f"{prefix}-{next(self._names)}"

    def bucket(self) -> str:
        """Create a versioned bucket."""
        name = self.name("bucket")
        self.client("s3").create_bucket(Bucket=name)
        self.client("s3").put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def source(self, **files: str) -> dict[str, Any]:
        """Put a zip into a bucket of its own and return a stage that takes it as the artifact ``Source``."""
        bucket = self.bucket()
        self.client("s3").put_object(Bucket=bucket, Key="source.zip", Body=zipped(**(files or {"a__txt": "a"})))
        configuration = {"S3Bucket": bucket, "S3ObjectKey": "source.zip", "PollForSourceChanges": "false"}
        return stage("Source", action("Take", "Source/S3", configuration, outputs=["Source"], namespace="source"))

    def declaration(self, *stages: dict[str, Any], **members: Any) -> dict[str, Any]:
        """Return a pipeline's declaration."""
        store = {"type": "S3", "location": self.store}
        return {
            "name": self.name("pipeline"),
            "roleArn": self.role,
            "artifactStore": store,
            "stages": list(stages),
            "pipelineType": "V2",
            **members,
        }

    def create(self, *stages: dict[str, Any], **members: Any) -> tuple[str, str]:
        """Create a pipeline; return its name and the id of the execution that this starts."""
        name = self.client("codepipeline").create_pipeline(pipeline=self.declaration(*stages, **members))["pipeline"]["name"]
        return name, self.executions(name)[0]["pipelineExecutionId"]

    def start(self, name: str, **request: Any) -> str:
        """Start an execution and return its id."""
        return str(self.client("codepipeline").start_pipeline_execution(name=name, **request)["pipelineExecutionId"])

    def executions(self, name: str) -> list[dict[str, Any]]:
        """Return the executions of a pipeline, the newest first."""
        found: list[dict[str, Any]] = self.client("codepipeline").list_pipeline_executions(pipelineName=name)["pipelineExecutionSummaries"]
        return found

    def status(self, name: str, execution: str) -> str:
        """Return an execution's status."""
        answer = self.client("codepipeline").get_pipeline_execution(pipelineName=name, pipelineExecutionId=execution)
        return str(answer["pipelineExecution"]["status"])

    def actions(self, name: str, execution: str) -> dict[str, dict[str, Any]]:
        """Return the newest run of each action of an execution."""
        request = {"pipelineName": name, "filter": {"pipelineExecutionId": execution}}
        details = self.client("codepipeline").list_action_executions(**request)["actionExecutionDetails"]
        return {detail["actionName"]: detail for detail in reversed(details)}

    def error(self, name: str, execution: str, action_name: str) -> str:
        """Return why an action failed."""
        return str(self.actions(name, execution)[action_name]["output"]["executionResult"]["errorDetails"]["message"])

    def stage_state(self, name: str, stage_name: str) -> dict[str, Any]:
        """Return a stage's state."""
        states = self.client("codepipeline").get_pipeline_state(name=name)["stageStates"]
        found: dict[str, Any] = next(state for state in states if state["stageName"] == stage_name)
        return found

    def fake_builds(self) -> Builds:
        """Put the stand-in into CodeBuild's place."""
        builds = Builds(self.cloud.db.announce)
        self.cloud.services["codebuild"] = builds
        return builds

    def connection(self, repository: str = REPOSITORY) -> tuple[str, str]:
        """Create a connection and authorize it for a repository; return its ARN and the folder to push to."""
        client = self.client("codeconnections")
        arn = client.create_connection(ConnectionName=self.name("connection"), ProviderType="GitHub")["ConnectionArn"]
        return arn, self.authorize(arn, repository)

    def authorize(self, arn: str, repository: str) -> str:
        """Do what a person does at the provider; return the folder to push to."""
        body = json.dumps({"ConnectionArn": arn, "FullRepositoryId": repository}).encode()
        request = urllib.request.Request(f"{self.region.endpoint_url}/_localcloud/connections/authorize", data=body, method="POST")
        with urllib.request.urlopen(request) as response:
            return str(json.load(response)["Remote"])


class Clone:
    """A clone on the developer's machine."""

    def __init__(self, folder: Path, remote: str) -> None:
        self._folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("remote", "add", "localcloud", remote)

    def git(self, *arguments: str) -> str:
        """Run git as a person, and return what it prints."""
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *who, *arguments], cwd=self._folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, message: str, **files: str) -> str:
        """Commit files (``__`` in a name stands for ``.``, ``___`` for ``/``) and return the commit."""
        for name, content in files.items():
            path = self._folder / name.replace("___", "/").replace("__", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def push(self, *refs: str) -> None:
        """Push refs."""
        self.git("push", "--quiet", "localcloud", *(refs or ("HEAD",)))


def real_project(shop: Workshop, *commands: str, **members: Any) -> str:
    """Create a CodeBuild project for pipelines, with a buildspec of these commands, and return its name."""
    iam = shop.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "codebuild.amazonaws.com"}, "Action": "sts:AssumeRole"}
    name = shop.name("builder")
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}))["Role"][
        "Arn"
    ]
    iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=json.dumps(ALL))
    buildspec = {"version": 0.2, "phases": {"build": {"commands": list(commands)}}, **members}
    shop.client("codebuild").create_project(
        name=name,
        source={"type": "CODEPIPELINE", "buildspec": json.dumps(buildspec)},
        artifacts={"type": "CODEPIPELINE"},
        environment={"type": "LINUX_CONTAINER", "image": "aws/codebuild/standard:7.0", "computeType": "BUILD_GENERAL1_SMALL"},
        serviceRole=role,
    )
    return name
