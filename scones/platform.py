"""The platform stack: made on localcloud when it is missing or its files changed, required on AWS."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.platform import Platform
    from pipelines.settings import Settings
    from scones.options import Context


def ensure_platform(context: Context, settings: Settings) -> Platform:
    """Return the account's bucket, roles and registry group.

    On localcloud the stack is deployed first (nothing happens when it is up to date). On AWS nothing is created behind a person's back.

    Raises:
        SconesError: On AWS: there is no platform stack.
    """
    from infrastructure.deploy import deploy_platform
    from pipelines.platform import resolve_platform

    target = context.target
    if target.kind == "localcloud":
        deploy_platform(target.session, settings)
    return resolve_platform(settings, target.session)
