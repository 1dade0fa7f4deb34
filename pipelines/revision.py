"""Which commit the project is at."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parent.parent


#: `git archive` puts the commit into it (.gitattributes); in a checkout it holds the placeholder.
_ARCHIVED = "pipelines/COMMIT"
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def source_revision(directory: Path = PROJECT_DIR, environ: Mapping[str, str] | None = None) -> str | None:
    """The full commit hash, with ``-dirty`` after it when tracked files differ from it; None when nothing says it.

    A build that has no checkout knows its commit from CodeBuild, in CODEBUILD_RESOLVED_SOURCE_VERSION, or from the archive that its sources
    came in: for a source in S3, CodeBuild says the object's version, which is taken when there is nothing better
    (https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-env-vars.html).
    """
    environ = os.environ if environ is None else environ
    resolved = environ.get("CODEBUILD_RESOLVED_SOURCE_VERSION", "")
    if _COMMIT.fullmatch(resolved):
        return resolved
    return _archived_commit(directory) or resolved or _checked_out_commit(directory)


def _archived_commit(directory: Path) -> str | None:
    try:
        text = (directory / _ARCHIVED).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if _COMMIT.fullmatch(text) else None


def _checked_out_commit(directory: Path) -> str | None:
    command = ["git", "-C", str(directory), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout.strip() or None
