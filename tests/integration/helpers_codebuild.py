"""A region with a role and buckets, and short ways to build in it."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from helpers_roles import mighty_role

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "codebuild.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
ENVIRONMENT = {"type": "LINUX_CONTAINER", "image": "aws/codebuild/standard:7.0", "computeType": "BUILD_GENERAL1_SMALL"}
BUCKET = "codebuild-tests"
#: Seconds within which any build here ends, even on a busy machine.
PATIENCE = 60.0


def buildspec(*commands: str, **members: Any) -> str:
    """Return a buildspec with these commands in its phase `build`, and other members."""
    content: dict[str, Any] = {"version": 0.2, **({"phases": {"build": {"commands": list(commands)}}} if commands else {})}
    return json.dumps(content | members)


def zip_of(files: Mapping[str, str | bytes]) -> bytes:
    """Return a zip of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def unzipped(body: bytes) -> dict[str, bytes]:
    """Return the files of a zip."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


class Lab:
    """What a test of CodeBuild needs of a region.

    Attributes:
        cb, s3, logs: boto3 clients.
        service: The CodeBuild service inside the process.
        role: The ARN of a role that CodeBuild can assume.
    """

    def __init__(self, region: Any) -> None:
        self.region = region
        self.service = region.cloud.services["codebuild"]
        self.cb, self.s3, self.logs = (region.client(name) for name in ("codebuild", "s3", "logs"))
        self.role: str = mighty_role(region.client("iam"), "codebuild", TRUST)
        self.s3.create_bucket(Bucket=BUCKET)
        self._numbers = itertools.count(1)

    def name(self, what: str = "project") -> str:
        """Return a name that is not taken."""
        return f"{what}-{next(self._numbers)}"

    def project(self, spec: str = "", **members: Any) -> str:
        """Make a project (without source and artifacts unless members say otherwise); return its name."""
        request: dict[str, Any] = {
            "name": self.name(),
            "source": {"type": "NO_SOURCE", "buildspec": spec},
            "artifacts": {"type": "NO_ARTIFACTS"},
            "environment": ENVIRONMENT,
            "serviceRole": self.role,
        }
        return str(self.cb.create_project(**(request | members))["project"]["name"])

    def source(self, files: Mapping[str, str | bytes]) -> dict[str, Any]:
        """Put a zip of files; return the source that names it."""
        key = f"{self.name('source')}.zip"
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=zip_of(files))
        return {"type": "S3", "location": f"{BUCKET}/{key}"}

    def start(self, project: str, **members: Any) -> str:
        """Start a build; return its id."""
        return str(self.cb.start_build(projectName=project, **members)["build"]["id"])

    def build(self, project: str, **members: Any) -> dict[str, Any]:
        """Run a build to its end; return what BatchGetBuilds returns."""
        return self.built(self.start(project, **members))

    def built(self, build_id: str) -> dict[str, Any]:
        """Wait for a build's end."""
        assert self.service.builds.wait(build_id, PATIENCE) is not None
        [build] = self.cb.batch_get_builds(ids=[build_id])["builds"]
        return dict(build)

    def run(self, *commands: str, **members: Any) -> dict[str, Any]:
        """Run commands as a build without a source."""
        return self.build(self.project(buildspec(*commands, **members)))

    def lines(self, build: Mapping[str, Any]) -> list[str]:
        """Return a build's log."""
        where = {"logGroupName": build["logs"]["groupName"], "logStreamName": build["logs"]["streamName"]}
        return [event["message"] for event in self.logs.get_log_events(**where, startFromHead=True)["events"]]

    def printed(self, build: Mapping[str, Any]) -> list[str]:
        """Return what a build's commands printed."""
        return [line for line in self.lines(build) if not line.startswith("[Container]")]

    def body(self, key: str) -> bytes:
        """Return an object."""
        return bytes(self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())


def phases(build: Mapping[str, Any]) -> dict[str, str]:
    """Return the status of each phase of a build."""
    return {phase["phaseType"]: phase.get("phaseStatus", "") for phase in build["phases"]}


def context(build: Mapping[str, Any], phase: str) -> tuple[str, str]:
    """Return the code and message of a phase's context."""
    [found] = [item for item in build["phases"] if item["phaseType"] == phase]
    [only] = found["contexts"]
    return only["statusCode"], only["message"]
