"""Container entrypoint of Processing jobs: `python3 entry.py <script>.py [arguments]`.

Installs `requirements.txt` (beside this file) when something in it is missing, and only then: where the image has everything, a job needs no
network. Then runs the script, which must stand beside this file, in the same process, as `python3 <script>.py [arguments]` would.
Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
import runpy
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from failures import StepError, configure_logging, write_failure

logger = logging.getLogger("entry")

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?P<bounds>[^;#]*)")
_BOUND = re.compile(r"(?P<comparison>==|>=|<=|!=|~=|<|>)\s*(?P<version>[0-9][0-9A-Za-z.+!-]*)")


def missing_requirements(lines: Iterable[str]) -> list[str]:
    """The lines of a requirements file that the installed packages do not meet.

    Reads `name`, `name>=1.2,<2` and comments, which is what our file holds; a line it cannot read counts as missing, so that pip decides.
    """
    missing = []
    for line in lines:
        text = line.split("#")[0].strip()
        if text and not _is_met(text):
            missing.append(text)
    return missing


def _is_met(requirement: str) -> bool:
    match = _REQUIREMENT.fullmatch(requirement)
    if match is None:
        return False
    try:
        installed = importlib.metadata.version(match["name"])
    except importlib.metadata.PackageNotFoundError:
        return False
    for part in filter(None, (part.strip() for part in match["bounds"].split(","))):
        bound = _BOUND.fullmatch(part)
        if bound is None or not _satisfies(_release(installed), bound["comparison"], _release(bound["version"])):
            return False
    return True


def _satisfies(installed: tuple[int, ...], comparison: str, wanted: tuple[int, ...]) -> bool:
    if comparison == "~=":  # PEP 440: at least this, and the same but for the last part
        return len(wanted) > 1 and installed >= wanted and installed[: len(wanted) - 1] == wanted[:-1]
    length = max(len(installed), len(wanted))
    left, right = (version + (0,) * (length - len(version)) for version in (installed, wanted))
    return {"==": left == right, ">=": left >= right, "<=": left <= right, "!=": left != right, "<": left < right, ">": left > right}[
        comparison
    ]


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version's release part: 2.13.0+cpu -> (2, 13, 0). Pre-releases count as the release, as is enough for ranges."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def install_requirements(path: Path) -> None:
    """Install what `path` lists and is missing. Raises StepError with pip's last line when that fails."""
    missing = missing_requirements(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else []
    if not missing:
        return
    logger.info("Installing %s", ", ".join(missing))
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "-r", str(path)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        logger.error("%s", result.stdout)
        last = next((line for line in reversed(result.stdout.splitlines()) if line.strip()), f"exit code {result.returncode}")
        raise StepError(f"pip could not install {', '.join(missing)}: {last.strip()}. Does the job reach a package index?")


def failure_file(arguments: Sequence[str]) -> Path | None:
    """The value of `--failure-file` among a script's arguments."""
    for index, argument in enumerate(arguments):
        if argument == "--failure-file" and index + 1 < len(arguments):
            return Path(arguments[index + 1])
        if argument.startswith("--failure-file="):
            return Path(argument.partition("=")[2])
    return None


def main(arguments: Sequence[str]) -> None:
    """Install, then become the script. Exits 1, with the message in the failure file, when there is no such script or pip fails."""
    configure_logging()
    folder = Path(__file__).resolve().parent
    try:
        if not arguments:
            raise StepError("usage: entry.py <script>.py [arguments]")
        script = folder / arguments[0]
        if not script.is_file():
            raise StepError(f"there is no {arguments[0]} beside entry.py in {folder}")
        install_requirements(folder / "requirements.txt")
    except StepError as error:
        logger.error("%s", error)
        target = failure_file(arguments)
        if target is not None:
            write_failure(target, str(error))
        sys.exit(1)
    sys.argv = [str(script), *arguments[1:]]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
