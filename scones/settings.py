"""The settings a command runs with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.settings import DEFAULT_STAGE, LoadedSettings, load_settings
from scones.target import LOCAL_REGION

if TYPE_CHECKING:
    from scones.options import Context


def load(context: Context, stage: str | None, overrides: Sequence[str]) -> LoadedSettings:
    """Load the settings of a stage (default: SCONES_STAGE, else the development stage) with ``section.key=value`` overrides.

    On AWS the region of the signed-in profile counts like AWS_REGION, and every client of this process goes to the region of the
    settings: what is looked for in one region must not be made in another. Else the region is localcloud's, and who asks for another is told.

    Raises:
        SettingsError: A key or a value is wrong; the message names it, what is allowed and the nearest name.
    """
    environ = dict(os.environ)
    if context.aws and not (environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")):
        environ["AWS_DEFAULT_REGION"] = _profile_region() or ""
    loaded = load_settings(stage_name(stage), overrides, environ)
    region = loaded.settings.aws.region
    if context.aws:
        os.environ |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    elif region != LOCAL_REGION:
        context.output.note(f"localcloud is {LOCAL_REGION}; aws.region {region} ({loaded.origins['aws.region']}) counts with --aws.")
        loaded = load_settings(stage_name(stage), [*overrides, f"aws.region={LOCAL_REGION}"], environ)
    return loaded


def stage_name(stage: str | None) -> str:
    """Return the stage that was asked for: by option, by SCONES_STAGE, else the development stage."""
    return stage or os.environ.get("SCONES_STAGE") or DEFAULT_STAGE


def _profile_region() -> str | None:
    import botocore.session

    region: str | None = botocore.session.get_session().get_config_variable("region")
    return region
