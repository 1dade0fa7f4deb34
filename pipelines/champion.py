"""The champion: the newest approved model, which a new one must not be worse than."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.errors import PlatformError
from pipelines.platform import Platform

if TYPE_CHECKING:
    import boto3


def resolve_champion(platform: Platform, boto_session: boto3.Session, *, dry_run: bool = False) -> str:
    """The S3 URI for the ChampionModelUri parameter: the newest approved version's artifact, or the prefix that says there is none.

    That prefix is written when it is needed, unless nothing shall be (`dry_run`).

    Raises:
        PlatformError: The newest approved version names no artifact, or the artifact is gone.
    """
    from botocore.exceptions import ClientError

    sagemaker = boto_session.client("sagemaker", region_name=platform.region)
    s3 = boto_session.client("s3", region_name=platform.region)
    try:
        packages = sagemaker.list_model_packages(
            ModelPackageGroupName=platform.model_package_group,
            ModelApprovalStatus="Approved",
            SortBy="CreationTime",
            SortOrder="Descending",
            MaxResults=1,
        )["ModelPackageSummaryList"]
    except ClientError as error:
        details = error.response.get("Error", {})
        if details.get("Code") not in ("ResourceNotFound", "ValidationException"):
            raise
        raise PlatformError(
            f"model package group {platform.model_package_group} cannot be listed: {details.get('Message')}; make it: scones aws bootstrap"
        ) from None
    if not packages:
        bucket, _, prefix = platform.no_champion_uri.removeprefix("s3://").partition("/")
        if not dry_run:
            s3.put_object(Bucket=bucket, Key=f"{prefix}none.json", Body=b'{"champion": null}\n', ContentType="application/json")
        return platform.no_champion_uri
    arn = packages[0]["ModelPackageArn"]
    containers = sagemaker.describe_model_package(ModelPackageName=arn).get("InferenceSpecification", {}).get("Containers", [])
    uri = containers[0].get("ModelDataUrl") if containers else None
    if uri is None:
        raise PlatformError(f"the newest approved model, {arn}, names no artifact to compare with; reject it and run again")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        reason = error.response.get("Error", {}).get("Code")
        raise PlatformError(
            f"the artifact of the newest approved model cannot be read ({reason}): {uri}; restore it, or reject {arn}"
        ) from None
    return str(uri)
