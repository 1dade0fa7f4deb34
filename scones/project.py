"""Where this clone keeps things."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: A command in a hint that works on AWS too, up to where its options begin; unless it says so already.
_ON_AWS = re.compile(
    r"(?<![\w-])scones (?:(?:models|deploy|cicd) [a-z]+|aws (?:bootstrap|diff|destroy)|stage|run|status|logs|classify)\b(?![^.,;)`]* --aws)"
)
#: A command in a hint, up to where its options begin.
_COMMAND = re.compile(
    r"(?<![\w-])scones (?:(?:models|deploy|aws|cicd|config) [a-z]+|demo|up|down|stage|run|status|logs|classify|mlflow)\b(?! --state-dir)"
)


@dataclass
class Invocation:
    """What the entry point has to know of a command that failed."""

    state_dir: Path | None = None
    aws: bool = False


def command() -> str:
    """Return what to type for this command line: `scones` when that is what a shell would find, else its path."""
    own = Path(sys.executable).with_name("scones")
    found = shutil.which("scones")
    if found is not None and Path(found).resolve() == own.resolve():
        return "scones"
    return shlex.quote(str(own.relative_to(Path.cwd())) if own.is_relative_to(Path.cwd()) else str(own))


def down_command(folder: Path) -> str:
    """Return what to type to end the localcloud of a state folder."""
    return with_state_dir(f"{command()} down", folder)


def with_state_dir(text: str, folder: Path) -> str:
    """Return a hint whose commands of this command line work on a state folder: each names it, when it is not the one they take by themselves."""
    if folder == state_dir():
        return text
    option = f" --state-dir {shlex.quote(str(folder))}"
    return _COMMAND.sub(lambda found: found[0] + option, text)


def as_typed(text: str, folder: Path, *, aws: bool) -> str:
    """Return a hint whose commands go on where this one was: on its state folder, and on AWS when it was there."""
    return _ON_AWS.sub(lambda found: f"{found[0]} --aws", text) if aws else with_state_dir(text, folder)


def state_dir() -> Path:
    """Return the folder that holds everything a clone makes: `.scones` in the clone, or SCONES_STATE_DIR."""
    return Path(os.environ.get("SCONES_STATE_DIR") or ROOT / ".scones").resolve()
