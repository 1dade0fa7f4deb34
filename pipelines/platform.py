"""What the account gives the pipeline: bucket, roles and registry group, from the platform stack's outputs or from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.errors import PlatformError
from pipelines.settings import Settings

if TYPE_CHECKING:
    import boto3


@dataclass(frozen=True, slots=True)
class Platform:
    """Names and ARNs of the account's resources that a pipeline definition refers to."""

    region: str
    bucket: str
    pipeline_role_arn: str
    job_role_arn: str
    model_role_arn: str
    model_package_group: str

    @property
    def no_champion_uri(self) -> str:
        """The prefix that stands for "no model has been approved yet"; it holds none.json."""
        return f"s3://{self.bucket}/champion/none/"


def resolve_platform(settings: Settings, boto_session: boto3.Session) -> Platform:
    """Take each resource from the settings or else from the platform stack; the stack is only asked when something is left open.

    Raises:
        PlatformError: The stack does not exist, is not readable, or lacks an output that is needed.
    """
    given = {
        "ArtifactBucketName": settings.aws.bucket,
        "PipelineRoleArn": settings.aws.pipeline_role_arn,
        "JobRoleArn": settings.aws.job_role_arn,
        "ModelRoleArn": settings.aws.model_role_arn,
        "ModelPackageGroupName": settings.registry.model_package_group,
    }
    open_names = [name for name, value in given.items() if value is None]
    outputs = _stack_outputs(settings.aws.platform_stack, settings.aws.region, boto_session) if open_names else {}
    missing = [name for name in open_names if name not in outputs]
    if missing:
        raise PlatformError(
            f"stack {settings.aws.platform_stack} has no output {', '.join(missing)}; bring it up to date: scones aws bootstrap"
        )
    values = {name: value if value is not None else outputs[name] for name, value in given.items()}
    return Platform(
        region=settings.aws.region,
        bucket=values["ArtifactBucketName"],
        pipeline_role_arn=values["PipelineRoleArn"],
        job_role_arn=values["JobRoleArn"],
        model_role_arn=values["ModelRoleArn"],
        model_package_group=values["ModelPackageGroupName"],
    )


def _stack_outputs(stack: str, region: str, boto_session: boto3.Session) -> Mapping[str, str]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        response = boto_session.client("cloudformation", region_name=region).describe_stacks(StackName=stack)
    except ClientError as error:
        details = error.response.get("Error", {})
        if "does not exist" in details.get("Message", ""):
            raise PlatformError(
                f"stack {stack} does not exist in {region}; make it (scones aws bootstrap), or look in another region (AWS_REGION, aws.region)"
            ) from None
        raise PlatformError(f"stack {stack} cannot be read in {region}: {details.get('Code')}: {details.get('Message')}") from None
    except BotoCoreError as error:
        raise PlatformError(f"stack {stack} cannot be read in {region}: {' '.join(str(error).split())}") from None
    description = response["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in description.get("Outputs", ())}
