"""The model registry: reading versions of a model package group."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from lambdas.deploy_inference_workflow.errors import InvalidEventError, ModelPackageNotFoundError

# The events by which EventBridge tells of changes to a model package.
DETAIL_TYPE = "SageMaker Model Package State Change"
APPROVED = "Approved"
REJECTED = "Rejected"
COMPLETED = "Completed"
_ARN = re.compile(r"arn:[^:]+:sagemaker:(?P<region>[^:]+):(?P<account>\d{12}):model-package/(?P<group>[^/]+)/(?P<version>\d+)")


@dataclass(frozen=True)
class ModelPackageArn:
    """The ARN of a versioned model package, and what it says."""

    arn: str
    region: str
    account: str
    group: str
    version: int

    @classmethod
    def parse(cls, arn: object) -> "ModelPackageArn":
        """Reads `arn:<partition>:sagemaker:<region>:<account>:model-package/<group>/<version>`.

        Raises:
            InvalidEventError: it is none.
        """
        match = _ARN.fullmatch(arn) if isinstance(arn, str) else None
        if match is None:
            raise InvalidEventError(f"'{arn}' is not the ARN of a versioned model package.")
        return cls(match[0], match["region"], match["account"], match["group"], int(match["version"]))

    def __str__(self) -> str:
        return f"version {self.version} of {self.group}"


@dataclass(frozen=True)
class ModelPackage:
    """A version as the registry describes it: `approval` is its ModelApprovalStatus, `status` its ModelPackageStatus."""

    arn: ModelPackageArn
    approval: str
    status: str

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> "ModelPackage":
        """Reads the answer of DescribeModelPackage, or an entry of ListModelPackages."""
        arn = ModelPackageArn.parse(description["ModelPackageArn"])
        return cls(arn, description.get("ModelApprovalStatus", ""), description["ModelPackageStatus"])


class Registry:
    """Reads model packages. `client` is a boto3 SageMaker client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def describe(self, arn: ModelPackageArn) -> ModelPackage:
        """Reads a version as it is now.

        Raises:
            ModelPackageNotFoundError: it does not exist (any more).
        """
        try:
            return ModelPackage.from_description(self._client.describe_model_package(ModelPackageName=arn.arn))
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
            if code in ("ValidationException", "ResourceNotFound") and re.search(
                "does not exist|not found|cannot find", message, re.IGNORECASE
            ):
                raise ModelPackageNotFoundError(
                    f"{arn} is not in the registry ({message}): it was deleted after the event was sent. Approve another version."
                ) from error
            raise

    def newest_approved(self, group: str, *, other_than: ModelPackageArn) -> ModelPackage | None:
        """Returns the highest Approved version of the group that is complete and not `other_than`, or None."""
        pages = self._client.get_paginator("list_model_packages").paginate(
            ModelPackageGroupName=group, ModelApprovalStatus=APPROVED, SortBy="CreationTime", SortOrder="Descending"
        )
        packages = (ModelPackage.from_description(summary) for page in pages for summary in page["ModelPackageSummaryList"])
        candidates = [package for package in packages if package.arn != other_than and package.status == COMPLETED]
        return max(candidates, key=lambda package: package.arn.version, default=None)
