"""A container's file system without a container: a folder that stands for /opt/ml, and a watch over what leaves it.

`/opt/ml` in a job's command, arguments, environment and driver scripts becomes the folder. Code that has the path written into it is not changed: it is stopped
by the guard (`guard/sitecustomize.py`), and what other programs do is found afterwards, by looking at the real /opt/ml.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from localcloud.folders import WorkFolders, remove_tree

CONTAINER_ROOT = "/opt/ml"
#: The folder of this machine that no job may touch.
REAL_ROOT = Path(CONTAINER_ROOT)
_GUARD = Path(__file__).parent / "guard"
#: /opt/ml as a path of its own: not the middle of /srv/opt/ml or s3://bucket/opt/ml, not the start of /opt/mlflow.
_PATH = re.compile(r"(?<![\w.\-])/opt/ml(?![\w.\-])")
_PYTHON = re.compile(r"python(3(\.\d+)?)?")
#: Texts of more than this are data, not scripts.
_SCRIPT_BYTES = 1 << 20


class Workshop(WorkFolders):
    """Where sandboxes are made."""

    def sandbox(self) -> Sandbox:
        """Make a new sandbox."""
        return Sandbox(self.new(), self.programs)


class Sandbox:
    """One job's or model server's file system.

    Attributes:
        ml: The folder that stands for /opt/ml.
        work: The working directory.
    """

    def __init__(self, root: Path, programs: Path) -> None:
        self.root = root
        self.ml = root / "ml"
        self.work = root / "work"
        self._programs = programs
        self._note = root / "escaped"
        self._real_before = _fingerprint(REAL_ROOT)
        for folder in (self.ml, self.work):
            folder.mkdir(parents=True)

    def path(self, container_path: str) -> Path:
        """Return where a path of the container is.

        Raises:
            ValueError: It is not below /opt/ml.
        """
        pure = PurePosixPath(os.path.normpath(container_path))
        return self.ml / pure.relative_to(CONTAINER_ROOT)

    def remap(self, text: str) -> str:
        """Return *text* with every path of /opt/ml as a path of the sandbox."""
        return _PATH.sub(lambda _: str(self.ml), text)

    def remap_values(self, value: Any) -> Any:
        """Return JSON data with every string in it remapped."""
        if isinstance(value, str):
            return self.remap(value)
        if isinstance(value, Mapping):
            return {key: self.remap_values(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.remap_values(item) for item in value]
        return value

    def remap_scripts(self, path: Path) -> None:
        """Remap a script, or every script below a folder, in place. Binary and large files are left alone."""
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        for file in files:
            if file.stat().st_size > _SCRIPT_BYTES:
                continue
            try:
                text = file.read_bytes().decode("utf-8")
            except UnicodeDecodeError:
                continue
            remapped = self.remap(text)
            if remapped != text:
                file.write_bytes(remapped.encode("utf-8"))

    def command(self, words: Sequence[str]) -> list[str]:
        """Return a container's command as it runs here: remapped, and any Python is this one."""
        first, *rest = [self.remap(word) for word in words]
        if _PYTHON.fullmatch(PurePosixPath(first).name) and not first.startswith(str(self.root)):
            first = sys.executable
        elif Path(first).is_file() and first.startswith(str(self.root)):
            # S3 keeps no permissions; in an image the script would be executable.
            os.chmod(first, 0o755)
        return [first, *rest]

    def environment(self, base: Mapping[str, str], container: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a process: this machine's, then the container's own variables (remapped), then the guard.

        Args:
            base: What reaches the region (`Cloud.client_environment`).
            container: The container's variables.
        """
        inherited = {
            key: value for key, value in base.items() if not key.startswith(("SM_", "SAGEMAKER_", "TRAINING_JOB_", "PROCESSING_JOB_"))
        }
        own = {key: self.remap(value) for key, value in container.items()}
        environment = inherited | own
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_GUARD), own.get("PYTHONPATH", "")]))
        environment["PATH"] = os.pathsep.join([str(self._programs), environment.get("PATH", os.defpath)])
        # Lines reach the log when they are printed, as people expect who watch a job.
        environment.setdefault("PYTHONUNBUFFERED", "1")
        environment["LOCALCLOUD_ESCAPE_FILE"] = str(self._note)
        return environment

    def escape(self) -> str | None:
        """Return what the code did outside of the sandbox, as a sentence; None when it did nothing."""
        if self._note.exists():
            return self._note.read_text(encoding="utf-8", errors="replace").splitlines()[0]
        if _fingerprint(REAL_ROOT) != self._real_before:
            return (
                f"The code changed this machine's {CONTAINER_ROOT} while it ran. On localcloud {CONTAINER_ROOT} is not the job's: take paths from arguments "
                "or SM_* variables, which name the job's own folder."
            )
        return None

    def remove(self) -> None:
        """Remove the folder and everything in it."""
        remove_tree(self.root)


def _fingerprint(root: Path) -> tuple[tuple[str, int], ...]:
    """Describe a folder: itself, its entries and their own entries with the times of their last change; empty when there is none."""
    found: list[tuple[str, int]] = []
    pending = [(str(root), 2)]
    while pending:
        path, depth = pending.pop()
        try:
            found.append((path, os.lstat(path).st_mtime_ns))
            if depth and os.path.isdir(path) and os.path.basename(path) != "metadata":
                pending += [(entry.path, depth - 1) for entry in os.scandir(path)]
        except OSError:
            continue
    return tuple(sorted(found))
