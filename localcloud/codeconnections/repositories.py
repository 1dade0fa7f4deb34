"""The git host behind connections: one bare repository per FullRepositoryId, below the state folder.

People add the repository's folder as a remote and push to it with plain git. Its post-receive hook appends git's own lines (old commit, new commit, ref) to a
file beside the refs, so that pushes made while localcloud is down are noticed as well, and two pushes in a row stay two.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from localcloud.errors import LocalCloudError

_FULL_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)+")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_PUSHES = "localcloud-pushes"
_HOOK = f"#!/bin/sh\n# Tells localcloud of pushes.\nexec cat >> {_PUSHES}\n"
#: Seconds that one git command may take.
_TIMEOUT = 300


class RepositoryError(LocalCloudError):
    """Indicates that a repository, branch or commit does not exist, or that git cannot be run."""


@dataclass(frozen=True)
class Commit:
    """A commit.

    Attributes:
        identifier: Its hash.
        message: The whole commit message.
        author_date: When it was written, in UTC.
        author: Who wrote it.
        email: Their address.
    """

    identifier: str
    message: str
    author_date: datetime
    author: str
    email: str


@dataclass(frozen=True)
class Push:
    """One ref that a push changed.

    Attributes:
        repository: The FullRepositoryId.
        ref: The full name, e.g. ``refs/heads/main``.
        before: The ref's commit before, None when it is new.
        after: The ref's commit now, None when it was deleted.
    """

    repository: str
    ref: str
    before: str | None
    after: str | None


class Repositories:
    """The bare repositories below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def create(self, full_id: str) -> Path:
        """Make a repository, or find the one that is there; return its folder, which is what `git remote add` takes.

        Raises:
            RepositoryError: The name is none, or git is missing.
        """
        if not _FULL_ID.fullmatch(full_id) or full_id.endswith(".git"):
            raise RepositoryError(f"'{full_id}' is not a repository's name: write owner/name with letters, digits, '.', '-' and '_'.")
        path = self._path(full_id)
        if not (path / "HEAD").exists():
            path.mkdir(parents=True, exist_ok=True)
            _git(path, "init", "--quiet", "--bare", "--initial-branch=main", ".")
        # Beats a hooksPath in the configuration of whoever pushes; relative, so that the state folder can be moved.
        _git(path, "config", "core.hooksPath", "hooks")
        hook = path / "hooks" / "post-receive"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(_HOOK)
        hook.chmod(0o755)
        return path

    def exists(self, full_id: str) -> bool:
        """Tell whether there is such a repository."""
        return bool(_FULL_ID.fullmatch(full_id)) and (self._path(full_id) / "HEAD").exists()

    def commit(self, full_id: str, revision: str) -> Commit:
        """Return the commit that a hash, a branch (``refs/heads/…``) or a tag (``refs/tags/…``) names.

        Raises:
            RepositoryError: There is none.
        """
        if not self.exists(full_id):
            raise RepositoryError(f"No repository {full_id}")
        if not revision.startswith(("refs/heads/", "refs/tags/")) and not _COMMIT.fullmatch(revision):
            raise RepositoryError(f"'{revision}' is not a commit of {full_id}")
        format_ = "--format=%H%x00%aI%x00%an%x00%ae%x00%B"
        text = _git(self._path(full_id), "log", "-1", "--no-show-signature", format_, f"{revision}^{{commit}}", "--").decode(
            errors="replace"
        )
        identifier, date, author, email, message = text.split("\0", 4)
        return Commit(identifier, message.strip(), datetime.fromisoformat(date).astimezone(UTC), author, email)

    def archive(self, full_id: str, commit: str) -> bytes:
        """Return a zip of a commit's files.

        Raises:
            RepositoryError: There is no such commit.
        """
        return _git(self._path(full_id), "archive", "--format=zip", commit)

    def changed_files(self, push: Push) -> list[str]:
        """Return the paths that a push changed; of a new ref, every file of its commit.

        Raises:
            RepositoryError: A commit is gone.
        """
        assert push.after is not None, "a deleted ref has no files"
        path = self._path(push.repository)
        if push.before is None:
            output = _git(path, "ls-tree", "-r", "-z", "--name-only", f"{push.after}^{{tree}}")
        else:
            # Without renames: a file that moved is a path that went and a path that came.
            output = _git(path, "diff-tree", "-r", "-z", "--name-only", "--no-renames", push.before, push.after)
        return [name.decode(errors="replace") for name in output.split(b"\0") if name]

    def pushes(self, full_id: str, offset: int) -> tuple[list[Push], int]:
        """Return what was pushed after *offset* (an earlier call's; at first 0), and the new offset. Costs one `stat` when nothing was."""
        file = self._path(full_id) / _PUSHES
        try:
            if file.stat().st_size <= offset:
                return [], offset
            with file.open("rb") as stream:
                stream.seek(offset)
                new = stream.read()
        except FileNotFoundError:
            return [], offset
        whole = new[: new.rfind(b"\n") + 1]
        pushes = []
        for line in whole.decode(errors="replace").splitlines():
            before, after, ref = line.split(" ", 2)
            pushes.append(Push(full_id, ref, _or_none(before), _or_none(after)))
        return pushes, offset + len(whole)

    def _path(self, full_id: str) -> Path:
        return self._root / f"{full_id}.git"


def _or_none(commit: str) -> str | None:
    return commit if commit.strip("0") else None


def _git(folder: Path, *arguments: str) -> bytes:
    program = shutil.which("git")
    if program is None:
        raise RepositoryError(
            "The program git is needed for repositories behind connections, and it is not on the PATH of localcloud. Install it."
        )
    # Neither the configuration of whoever started localcloud nor the repository that they stood in has a say here.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_DIR": str(folder), "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [program, *arguments], cwd=folder, env=environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RepositoryError(f"git {arguments[0]} in {folder} failed: {error}") from error
    if done.returncode:
        raise RepositoryError(f"git {arguments[0]} in {folder} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
