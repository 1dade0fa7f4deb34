"""Folders for what child processes do: below the state folder, empty again after a restart, under paths that every script can bear."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4


class WorkFolders:
    """Where work folders are made.

    Args:
        folder: It is emptied: nothing in it outlives the process that made it.

    Attributes:
        folder: The same, or a link to it when its path has characters that scripts do not quote.
        programs: A folder for PATH, in which Python and pip are those that run localcloud.
    """

    def __init__(self, folder: Path) -> None:
        remove_tree(folder)
        folder.mkdir(parents=True)
        self._real = folder
        self._link: Path | None = None
        # The SDK's driver scripts do not quote paths, so that the jobs must not see a state folder with a space in it.
        if not re.fullmatch(r"[\w./+@,=-]+", str(folder)):
            self._link = Path(tempfile.mkdtemp(prefix="localcloud-")) / folder.name
            self._link.symlink_to(folder)
        self.folder = self._link or folder
        self.programs = self.folder / "bin"
        self._write_programs()

    def _write_programs(self) -> None:
        """Make `python`, `python3`, `pip` and `pip3` this interpreter, under a path without spaces, also where a virtual environment has no pip."""
        self.programs.mkdir()
        for name, options in {"python": "", "python3": "", "pip": " -m pip", "pip3": " -m pip"}.items():
            path = self.programs / name
            path.write_text(f'#!/bin/sh\nexec "{sys.executable}"{options} "$@"\n')
            path.chmod(0o755)

    def new(self) -> Path:
        """Return the path of a folder that does not exist yet."""
        # Short: Unix sockets that jobs make below it have at most 104 characters.
        return self.folder / uuid4().hex[:12]

    def close(self) -> None:
        """Remove everything."""
        remove_tree(self._real)
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.unlink()
                self._link.parent.rmdir()


def remove_tree(folder: Path) -> None:
    """Remove a folder, also one whose contents were made read-only; what cannot be removed stays."""

    def make_writable(function: Any, path: str, _: Any) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(path), stat.S_IRWXU)
            os.chmod(path, stat.S_IRWXU)
            function(path)

    shutil.rmtree(folder, onerror=make_writable)
