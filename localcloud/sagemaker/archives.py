"""tar.gz archives: made of what a training job wrote, unpacked for a model server without trusting them."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zlib
from pathlib import Path

from localcloud.errors import LocalCloudError

#: Compression is part of every run's time; level 1 takes a third of level 6's for a few per cent more bytes.
_LEVEL = 1


class BadArchive(LocalCloudError):
    """Indicates that a file is not a tar.gz archive, or one that would write outside of its folder."""


def pack(folder: Path) -> bytes | None:
    """Return a folder's files as tar.gz, None when there are none. The same files give the same bytes: no times, no owners."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        return None
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=_LEVEL, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in files:
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size = path.stat().st_size
            member.mode = path.stat().st_mode & 0o777
            with path.open("rb") as content:
                archive.addfile(member, content)
    return buffer.getvalue()


def unpack(body: bytes, folder: Path) -> None:
    """Unpack a tar.gz into a folder. Owners, times and all permissions but "executable" are dropped.

    Raises:
        BadArchive: It is not an archive, or has a member that is neither a file nor a folder inside *folder*.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inside = folder.resolve()
    try:
        # Member by member: tarfile's own filters are not in every Python 3.11.
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as archive:
            for member in archive:
                target = inside / member.name
                if not target.resolve().is_relative_to(inside):
                    raise BadArchive(f"its member '{member.name}' leaves the folder that it is unpacked to")
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    raise BadArchive(f"its member '{member.name}' is neither a file nor a folder")
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(content, file)
                target.chmod(0o755 if member.mode & 0o100 else 0o644)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadArchive(f"not a tar.gz archive that can be unpacked: {error}") from error
