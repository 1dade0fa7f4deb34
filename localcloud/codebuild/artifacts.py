"""Which files are an artifact, and the zip that they become.

Source: https://docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html, artifacts.
"""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath

from localcloud.codebuild.buildspec import Artifact
from localcloud.codebuild.errors import PhaseFailure

#: As in neighbouring archives: the same files give the same bytes. Zip files know no earlier time.
_TIME = (1980, 1, 1, 0, 0, 0)
_CLIENT_ERROR = "CLIENT_ERROR"


def find_files(artifact: Artifact, source: Path, log: Callable[[str], None]) -> dict[str, Path]:
    """Return an artifact's files by their paths in it.

    Args:
        artifact: What the buildspec says of it.
        source: The folder that patterns are relative to.
        log: Takes the lines of the build's log.

    Raises:
        PhaseFailure: There are none.
    """
    log(f"Expanding base directory path: {artifact.base_directory}")
    bases = _base_directories(artifact.base_directory, source)
    if not bases:
        raise PhaseFailure(_CLIENT_ERROR, f"no matching base directory path found for {artifact.base_directory}")
    for pattern in artifact.files:
        if pattern.startswith("/"):
            raise PhaseFailure(
                _CLIENT_ERROR,
                f"the absolute path {pattern} in artifacts/files is not supported by localcloud; name its folder as base-directory",
            )
        log(f"Expanding {pattern}")
    found: dict[str, Path] = {}
    for base in bases:
        for name in sorted(_walk(base)):
            if _matches(name, artifact.files) and not _matches(name, artifact.exclude_paths):
                found[PurePosixPath(name).name if artifact.discard_paths else name] = base / name
    if not found:
        raise PhaseFailure(_CLIENT_ERROR, "no matching artifact paths found")
    log(f"Found {len(found)} file(s)")
    return found


def _base_directories(pattern: str, source: Path) -> list[Path]:
    if os.path.isabs(pattern):
        return [Path(pattern)] if Path(pattern).is_dir() else []
    normal = os.path.normpath(pattern)
    if not re.search(r"[*?\[]", normal):
        return [source / normal] if (source / normal).is_dir() else []
    # "One or more top-level directories": a pattern is about folders of one depth.
    return sorted(path for path in source.glob(normal) if path.is_dir())


def _walk(base: Path) -> Iterable[str]:
    for folder, _, names in os.walk(base):
        for name in names:
            path = Path(folder, name)
            if path.is_file():
                yield path.relative_to(base).as_posix()


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(compile_pattern(pattern).fullmatch(name) for pattern in patterns)


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return a pattern of paths as a regular expression: ``*`` and ``?`` stay in one folder, ``**`` goes through any number of them."""
    expression = ""
    rest = os.path.normpath(pattern) if pattern else pattern
    while rest:
        if rest.startswith("**/"):
            expression, rest = expression + "(?:.*/)?", rest[3:]
        elif rest.startswith("**"):
            expression, rest = expression + ".*", rest[2:]
        elif rest[0] == "*":
            expression, rest = expression + "[^/]*", rest[1:]
        elif rest[0] == "?":
            expression, rest = expression + "[^/]", rest[1:]
        else:
            expression, rest = expression + re.escape(rest[0]), rest[1:]
    return re.compile(expression, re.DOTALL)


def zip_files(files: Mapping[str, Path]) -> bytes:
    """Return files as a zip; the same files give the same bytes. Of permissions only "executable" is kept."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, path in sorted(files.items()):
            member = zipfile.ZipInfo(name, _TIME)
            member.external_attr = (stat.S_IFREG | (0o755 if os.access(path, os.X_OK) else 0o644)) << 16
            archive.writestr(member, path.read_bytes(), zipfile.ZIP_DEFLATED, 6)
    return buffer.getvalue()


def unzip(body: bytes, folder: Path) -> None:
    """Unpack a source's zip into a folder, with "executable" and links that stay inside.

    Raises:
        PhaseFailure: It is no zip, or has a member that leaves the folder.
    """
    inside = folder.resolve()
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            for member in archive.infolist():
                target = inside / member.filename
                mode = member.external_attr >> 16
                if not target.resolve().is_relative_to(inside):
                    raise PhaseFailure(_CLIENT_ERROR, f"the member {member.filename} of the source's zip leaves its folder")
                if member.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                content = archive.read(member)
                if stat.S_ISLNK(mode):
                    link = content.decode("utf-8", "surrogateescape")
                    if not (target.parent / link).resolve().is_relative_to(inside):
                        raise PhaseFailure(_CLIENT_ERROR, f"the link {member.filename} in the source's zip leaves its folder")
                    target.symlink_to(link)
                    continue
                target.write_bytes(content)
                target.chmod(0o755 if mode & 0o100 else 0o644)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise PhaseFailure(_CLIENT_ERROR, "zip: not a valid zip file") from error
