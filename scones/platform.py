"""The platform stack: made and kept up to date on localcloud, required on AWS; what the settings choose of it, and of the delivery on top of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from scones.errors import ExitCode, SconesError

if TYPE_CHECKING:
    from infrastructure.cicd import CicdParameters
    from infrastructure.deploy import PlatformParameters
    from pipelines.platform import Platform
    from pipelines.settings import Settings
    from scones.options import Context


def ensure_platform(context: Context, settings: Settings) -> Platform:
    """Return the account's bucket, roles and registry group.

    On localcloud the stack is deployed first; nothing happens when it is up to date. On AWS nothing is created behind a person's back.

    Raises:
        DeploymentError: The stack could not be deployed; the message has the failed resource's reason.
        PlatformError: On AWS: there is no platform stack.
    """
    from pipelines.platform import resolve_platform

    target = context.target
    if target.kind == "localcloud":
        from infrastructure.deploy import deploy_platform
        from lambdas.deploy_inference_workflow.stacks import Change
        from scones.registry import stack_outputs

        made = deploy_platform(target.session, platform_parameters(settings)).change is Change.CREATED
        if made and stack_outputs(target, f"{settings.project.name}-inference") is not None:
            context.output.note(
                "The platform was gone and has been made again. Production still has roles of the old one: scones deploy refresh"
            )
    return resolve_platform(settings, target.session)


def existing_platform(context: Context, settings: Settings) -> Platform:
    """Return the account's bucket, roles and registry group, and make nothing: for dry runs.

    Raises:
        PlatformError: On AWS: there is no platform stack.
        SconesError: On localcloud: there is none yet.
    """
    from pipelines.errors import PlatformError
    from pipelines.platform import resolve_platform

    try:
        return resolve_platform(settings, context.target.session)
    except PlatformError as error:
        if context.target.kind == "aws":
            raise
        raise SconesError(
            f"There is no platform on {context.target} yet, and a dry run makes none",
            "Make it: scones aws bootstrap (a real run on localcloud does it by itself).",
            ExitCode.USAGE,
        ) from error


def platform_parameters(settings: Settings) -> PlatformParameters:
    """Return what the settings choose of the platform stack.

    Raises:
        SconesError: They name things that would be another project's.
    """
    from infrastructure.deploy import PlatformParameters, ServingMode, TrafficShifting

    _check_names(settings)
    platform, production = settings.platform, settings.production
    tracking = settings.mlflow.tracking_uri or ""
    return PlatformParameters(
        project=settings.project.name,
        stage=settings.stage,
        model_package_group_name=settings.registry.model_package_group or settings.pipeline.name,
        pipeline_name=settings.pipeline.name,
        notification_email=platform.notification_email or "",
        image_bucket_name=platform.image_bucket or "",
        serving_mode=ServingMode(production.kind),
        serving_instance_type=production.instance_type,
        serving_instance_count=production.instance_count,
        traffic_shifting=TrafficShifting(production.traffic_shifting),
        traffic_shift_wait_in_seconds=production.traffic_shift_wait_seconds,
        kept_versions=production.kept_versions,
        serverless_memory_in_mb=production.serverless_memory_mb,
        serverless_max_concurrency=production.serverless_max_concurrency,
        confidence_threshold=settings.evaluation.confidence_threshold,
        log_retention_in_days=platform.log_retention_days,
        new_versions_may_be=settings.registry.approval_status,
        permissions_boundary_arn=platform.permissions_boundary_arn or "",
        encryption_key_arn=platform.encryption_key_arn or "",
        access_log_bucket_name=platform.access_log_bucket or "",
        # A server elsewhere is none of IAM's business.
        mlflow_tracking_server_arn=tracking if ":mlflow-tracking-server/" in tracking else "",
        mlflow_app_arn=tracking if ":mlflow-app/" in tracking else "",
        monthly_budget=platform.monthly_budget_usd,
    )


def check_delivery(settings: Settings) -> None:
    """Refuse settings from which no delivery stack can be made.

    Raises:
        SconesError: They do not say which repository's pushes are delivered.
    """
    if settings.cicd.source != "s3" and settings.cicd.repository is None:
        raise SconesError(
            "cicd.repository is not set: which repository's pushes shall be delivered?",
            "Name it with --set cicd.repository=owner/name or in config/; without CodeConnections, upload sources instead: --set cicd.source=s3",
            ExitCode.USAGE,
        )


def delivery_parameters(context: Context, settings: Settings, platform: Platform) -> CicdParameters:
    """Return what the settings and the platform's outputs say about the delivery stack.

    Raises:
        SconesError: The platform is older than the delivery.
    """
    from scones.registry import stack_outputs

    outputs = stack_outputs(context.target, settings.aws.platform_stack)
    if outputs is None or "NotificationTopicArn" not in outputs:
        raise SconesError(
            f"The stack {settings.aws.platform_stack} has no output NotificationTopicArn, which the delivery needs",
            f"Bring the platform up to date: scones aws bootstrap{' --aws' if context.aws else ''}",
            ExitCode.USAGE,
        )
    return dataclasses.replace(
        chosen_delivery(settings),
        artifact_bucket_name=platform.bucket,
        pipeline_role_arn=platform.pipeline_role_arn,
        model_package_group_name=platform.model_package_group,
        notification_topic_arn=outputs["NotificationTopicArn"],
    )


def chosen_delivery(settings: Settings) -> CicdParameters:
    """Return what the settings alone choose of the delivery stack; what the platform's outputs say is left empty."""
    from infrastructure.cicd import CicdParameters

    chosen = settings.cicd
    return CicdParameters(
        project=settings.project.name,
        stage=settings.stage,
        source=chosen.source,
        repository=chosen.repository or "",
        branch=chosen.branch,
        connection_arn=chosen.connection_arn or "",
        connection_provider=chosen.provider,
        git_hub_oidc_provider_arn=chosen.github_oidc_provider_arn or "",
        test_command=chosen.test_command,
        build_image=chosen.build_image,
        test_compute_type=chosen.test_compute_type,
        artifact_bucket_name="",
        pipeline_role_arn="",
        model_package_group_name="",
        pipeline_name=settings.pipeline.name,
        notification_topic_arn="",
        permissions_boundary_arn=settings.platform.permissions_boundary_arn or "",
        encryption_key_arn=settings.platform.encryption_key_arn or "",
        log_retention_in_days=settings.platform.log_retention_days,
    )


def _check_names(settings: Settings) -> None:
    """Refuse names outside of the project: the roles do not allow them, and to remove this project would remove another's.

    Raises:
        SconesError: A name is that of another project.
    """
    project = settings.project.name
    for key, what, name, own in (
        ("aws.platform_stack", "stack", settings.aws.platform_stack, f"{project}-platform"),
        ("staging_endpoint.name", "staging endpoint", settings.staging_endpoint.name, f"{project}-staging"),
    ):
        if name != own:
            raise SconesError(
                f"{key} is {name}, but the {what} of the project {project} is {own}",
                f"Leave {key} out (null), or set project.name to what the names begin with.",
                ExitCode.USAGE,
            )
