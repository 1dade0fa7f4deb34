"""tar.gz archives: made of what a training job wrote, unpacked for a model server without trusting them."""

from __future__ import annotations

import gzip
import io
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
    """Unpack a tar.gz into a folder.

    Raises:
        BadArchive: It is not an archive, or a member is not a file, folder or link inside the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as archive:
            # Python's "data" filter refuses absolute paths, "..", links that lead out, devices, and drops owners and set-uid bits.
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadArchive(f"not a tar.gz archive that can be unpacked: {error}") from error
