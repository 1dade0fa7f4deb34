"""The settings a command runs with."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pipelines.settings import DEFAULT_STAGE, LoadedSettings, load_settings


def load(stage: str | None, overrides: Sequence[str]) -> LoadedSettings:
    """Load the settings of a stage (default: SCONES_STAGE, else the development stage) with ``section.key=value`` overrides.

    Raises:
        SettingsError: A key or a value is wrong; the message names it, what is allowed and the nearest name.
    """
    return load_settings(stage or os.environ.get("SCONES_STAGE") or DEFAULT_STAGE, list(overrides), os.environ)
