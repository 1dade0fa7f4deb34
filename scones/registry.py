"""The model registry from a person's side: versions, their metrics, and the decision on them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from scones.errors import ExitCode, SconesError

if TYPE_CHECKING:
    from pipelines.settings import Settings
    from scones.target import Target

Decision = Literal["Approved", "Rejected"]


@dataclass(frozen=True)
class ModelVersion:
    """One version of the model package group."""

    arn: str
    number: int
    status: str
    created: datetime
    model_data: str | None = None
    evaluation_uri: str | None = None
    accuracy: float | None = None
    in_production: bool = False
    properties: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the version as --json prints it."""
        return {
            "version": self.number,
            "status": self.status,
            "accuracy": self.accuracy,
            "in_production": self.in_production,
            "created": self.created,
            "model_package_arn": self.arn,
        }


class Registry:
    """The project's model package group on a target."""

    def __init__(self, target: Target, settings: Settings) -> None:
        self._target = target
        self._settings = settings
        self._sagemaker = target.client("sagemaker")
        self._s3 = target.client("s3")
        self.group = settings.registry.model_package_group or settings.pipeline.name

    def versions(self) -> list[ModelVersion]:
        """Return all versions, newest first; none when nothing was ever registered."""
        paginator = self._sagemaker.get_paginator("list_model_packages")
        pages = paginator.paginate(ModelPackageGroupName=self.group, SortBy="CreationTime", SortOrder="Descending")
        try:
            arns = [package["ModelPackageArn"] for page in pages for package in page["ModelPackageSummaryList"]]
        except self._sagemaker.exceptions.ClientError as error:
            if "does not exist" in str(error):
                return []
            raise
        production = self.production_arn()
        return [self._describe(arn, production) for arn in arns]

    def find(self, version: str) -> ModelVersion:
        """Return a version by number or ARN.

        Raises:
            SconesError: There is no such version; the message lists those there are.
        """
        production = self.production_arn()
        if version.startswith("arn:"):
            try:
                return self._describe(version, production)
            except self._sagemaker.exceptions.ClientError as error:
                raise SconesError(f"There is no model package {version}", "List them: scones models list", ExitCode.USAGE) from error
        versions = self.versions()
        for found in versions:
            if str(found.number) == version.lstrip("v"):
                return found
        there = ", ".join(str(found.number) for found in versions) or "none yet; make one: scones run"
        raise SconesError(
            f"There is no version '{version}' in the group {self.group} ({self._target})", f"Versions: {there}", ExitCode.USAGE
        )

    def newest_pending(self) -> ModelVersion:
        """Return the newest version that waits for approval.

        Raises:
            SconesError: None waits, or a newer one serves or will: to go back to an older one is nothing that happens by itself.
        """
        newer: ModelVersion | None = None
        for found in self.versions():
            if found.status != "PendingManualApproval":
                newer = newer or (found if found.in_production or found.status == "Approved" else None)
            elif newer is None:
                return found
            else:
                is_there = "serves" if newer.in_production else "is Approved already"
                raise SconesError(
                    f"The newest version that waits is {found.number}, and version {newer.number}, which is newer, {is_there}; nothing was decided",
                    f"To go back to it all the same, name it: scones models approve {found.number}. To an Approved one: scones deploy rollback",
                    ExitCode.USAGE,
                )
        raise SconesError(f"No version waits for approval ({self._target})", "List them: scones models list", ExitCode.USAGE)

    def decide(self, version: ModelVersion, decision: Decision, comment: str | None) -> ModelVersion:
        """Set a version's approval status, as a person does in Studio; the event that follows does the rest."""
        request = {"ModelPackageArn": version.arn, "ModelApprovalStatus": decision}
        if comment:
            request["ApprovalDescription"] = comment
        self._sagemaker.update_model_package(**request)
        return self._describe(version.arn, self.production_arn())

    def metrics(self, version: ModelVersion) -> dict[str, Any]:
        """Return the figures of a version's evaluation report; empty when it has none."""
        if version.evaluation_uri is None:
            return {}
        bucket, _, key = version.evaluation_uri.removeprefix("s3://").partition("/")
        try:
            report = json.loads(self._s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        except self._s3.exceptions.ClientError:
            return {}
        figures: dict[str, Any] = {}
        for name, value in report.get("scones", {}).items():
            if isinstance(value, int | float):
                figures[name] = value
        return figures

    def production_arn(self) -> str | None:
        """Return the model package that the inference stack serves, or None."""
        outputs = stack_outputs(self._target, f"{self._settings.project.name}-inference")
        return None if outputs is None else outputs.get("ModelPackageArn")

    def _describe(self, arn: str, production: str | None) -> ModelVersion:
        package = self._sagemaker.describe_model_package(ModelPackageName=arn)
        containers = package.get("InferenceSpecification", {}).get("Containers", [{}])
        statistics = package.get("ModelMetrics", {}).get("ModelQuality", {}).get("Statistics", {})
        version = ModelVersion(
            arn=arn,
            number=package.get("ModelPackageVersion", 0),
            status=package.get("ModelApprovalStatus", "PendingManualApproval"),
            created=package["CreationTime"],
            model_data=containers[0].get("ModelDataUrl"),
            evaluation_uri=statistics.get("S3Uri"),
            in_production=arn == production,
            properties=package.get("CustomerMetadataProperties", {}),
        )
        accuracy = self.metrics(version).get("accuracy")
        return version if accuracy is None else ModelVersion(**{**version.__dict__, "accuracy": accuracy})


def stack_outputs(target: Target, name: str) -> dict[str, str] | None:
    """Return a CloudFormation stack's outputs, or None when there is no such stack."""
    cloudformation = target.client("cloudformation")
    try:
        stacks = cloudformation.describe_stacks(StackName=name)["Stacks"]
    except cloudformation.exceptions.ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return {output["OutputKey"]: output["OutputValue"] for output in stacks[0].get("Outputs", [])}
