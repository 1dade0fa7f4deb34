"""Which commit the project is at."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parent.parent


def source_revision(directory: Path = PROJECT_DIR, environ: Mapping[str, str] | None = None) -> str | None:
    """The full commit hash, with ``-dirty`` after it when tracked files differ from it; None outside a git checkout.

    A build that has no checkout names its commit itself: CodeBuild in CODEBUILD_RESOLVED_SOURCE_VERSION
    (https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-env-vars.html).
    """
    environ = os.environ if environ is None else environ
    if resolved := environ.get("CODEBUILD_RESOLVED_SOURCE_VERSION"):
        return resolved
    command = ["git", "-C", str(directory), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout.strip() or None
