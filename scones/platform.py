"""The platform stack: made and kept up to date on localcloud, required on AWS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scones.errors import ExitCode, SconesError

if TYPE_CHECKING:
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

        deploy_platform(target.session, platform_parameters(settings))
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
