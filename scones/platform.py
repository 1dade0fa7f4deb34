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
    """Return what the settings choose of the platform stack."""
    from infrastructure.deploy import PlatformParameters

    return PlatformParameters(
        project=settings.project.name,
        stage=settings.stage,
        model_package_group_name=settings.registry.model_package_group or settings.pipeline.name,
        pipeline_name=settings.pipeline.name,
        confidence_threshold=settings.evaluation.confidence_threshold,
    )
