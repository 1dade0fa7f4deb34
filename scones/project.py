"""Where this clone keeps things."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def command() -> str:
    """Return what to type for this command line: `scones` when that is what a shell would find, else its path."""
    own = Path(sys.executable).with_name("scones")
    found = shutil.which("scones")
    if found is not None and Path(found).resolve() == own.resolve():
        return "scones"
    return shlex.quote(str(own.relative_to(Path.cwd())) if own.is_relative_to(Path.cwd()) else str(own))


def down_command(folder: Path) -> str:
    """Return what to type to end the localcloud of a state folder."""
    return f"{command()} down" + ("" if folder == state_dir() else f" --state-dir {shlex.quote(str(folder))}")


def state_dir() -> Path:
    """Return the folder that holds everything a clone makes: `.scones` in the clone, or SCONES_STATE_DIR."""
    return Path(os.environ.get("SCONES_STATE_DIR") or ROOT / ".scones").resolve()
