"""The committed sources as one zip, as `git archive` makes it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from scones import project
from scones.errors import ExitCode, SconesError

_SECONDS = 120


@dataclass(frozen=True)
class SourceArchive:
    """A commit's files.

    Attributes:
        data: The zip.
        is_dirty: Whether tracked files differ from the commit.
    """

    commit: str
    summary: str
    data: bytes
    is_dirty: bool

    def __str__(self) -> str:
        return f"commit {self.commit[:12]} ({self.summary}), {len(self.data) / 1e6:.1f} MB"


def archive() -> SourceArchive:
    """Return the sources of the commit that is checked out in this clone.

    Raises:
        SconesError: This is no clone, nothing is committed, or git is missing.
    """
    commit, _, summary = _git("log", "-1", "--no-show-signature", "--format=%H %s").decode(errors="replace").strip().partition(" ")
    is_dirty = bool(_git("status", "--porcelain", "--untracked-files=no").strip())
    return SourceArchive(commit, summary, _git("archive", "--format=zip", commit), is_dirty)


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", str(project.ROOT), *arguments], capture_output=True, timeout=_SECONDS, check=True).stdout
    except FileNotFoundError:
        raise SconesError("git is not installed, and the sources of a commit are taken with it", "Install git.", ExitCode.USAGE) from None
    except subprocess.CalledProcessError as error:
        text = " ".join(error.stderr.decode(errors="replace").split())
        raise SconesError(
            f"The sources of a commit cannot be taken from {project.ROOT}: {text}",
            "Only what is committed can be delivered.",
            ExitCode.USAGE,
        ) from None
