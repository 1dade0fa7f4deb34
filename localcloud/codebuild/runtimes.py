"""``runtime-versions``: the one runtime that a build has here is the Python that runs localcloud."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping

from localcloud.codebuild.buildspec import BuildspecError

_PYTHON = re.compile(r"latest|(\d+)(\.(\d+|x)){0,2}")


def select_runtimes(runtimes: Mapping[str, str]) -> list[str]:
    """Return what the log says of the runtimes that a buildspec asks for.

    Raises:
        BuildspecError: There is no such runtime or version here.
    """
    lines = []
    for name, version in runtimes.items():
        if name != "python":
            raise BuildspecError(
                f"Unknown runtime named '{name}'. This build image has the following runtimes: python (localcloud runs builds without images)"
            )
        match = _PYTHON.fullmatch(version)
        if match is None or match[1] not in (None, str(sys.version_info.major)):
            raise BuildspecError(
                f"Unknown runtime version named '{version}' of python. This build image has the following versions: {platform.python_version()}"
            )
        lines.append(f"Selecting 'python' runtime version '{version}' based on manual selections...")
        lines.append(f"localcloud: python is this machine's {platform.python_version()}, whichever minor version is named")
    return lines
