"""CIFAR-100 as a source: the official archive, downloaded or given, checked, and the wanted classes written out as class folders.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; formats and checksums as published on its page,
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import IO

from staging.dataset import Progress, ProgressEvent, Split, StagingPhase
from staging.errors import ArchiveError, DownloadError, UnknownClassError
from staging.pickledata import ByteArray, PickleDataError, read_pickle_data

CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
DEFAULT_CLASSES = ("bicycle", "motorcycle")
_SIDE = 32
_PIXEL_BYTES = 3 * _SIDE * _SIDE
_CHUNK = 1024 * 1024
_CONNECT_SECONDS = 10.0


class CifarFormat(StrEnum):
    """The two published forms that hold the same images."""

    BINARY = "cifar-100-binary"
    PYTHON = "cifar-100-python"


@dataclass(frozen=True, slots=True)
class CifarArchive:
    """A published archive: where it is, the MD5 its page states (hex), its size in bytes."""

    format: CifarFormat
    url: str
    md5: str
    size: int


OFFICIAL_ARCHIVES = (
    CifarArchive(
        CifarFormat.BINARY, "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", 168_513_733
    ),
    CifarArchive(
        CifarFormat.PYTHON, "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", 169_001_437
    ),
)


def extract_cifar100(
    cache_dir: Path,
    *,
    archive: Path | None = None,
    classes: Sequence[str] = DEFAULT_CLASSES,
    progress: Progress | None = None,
    published: Sequence[CifarArchive] = OFFICIAL_ARCHIVES,
) -> Path:
    """Write the wanted classes as `<folder>/<train|test>/<class>/<name>.png` (32 x 32 RGB) below `cache_dir` and return the folder.

    `archive`: a copy of one of the `published` archives; None downloads the first of them into `cache_dir`. Its checksum is verified before
    anything in it is read. Labels are the archive's label fields. Done once per archive and choice of classes. Raises DownloadError,
    ArchiveError, UnknownClassError.
    """
    wanted = sorted(set(classes))
    if archive is None:
        folder = cache_dir / _folder_name(published[0].md5, wanted)
        if folder.is_dir():
            return folder
        archive = download(published[0], cache_dir, progress)
        kind = published[0]
    else:
        kind = identify(archive, published)
        folder = cache_dir / _folder_name(kind.md5, wanted)
        if folder.is_dir():
            return folder
    _extract(archive, kind.format, wanted, folder, progress)
    return folder


def identify(path: Path, published: Sequence[CifarArchive] = OFFICIAL_ARCHIVES) -> CifarArchive:
    """Which of the published archives a file is, by its checksum. Raises ArchiveError when it is none of them."""
    try:
        # The published checksum is an MD5: it guards against damage and mistakes, which is all it is used for.
        with path.open("rb") as handle:
            md5 = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise ArchiveError(
            f"{path} cannot be read: {error.strerror or error}", f"Give the path of an archive downloaded from {CIFAR_PAGE}."
        ) from error
    for known in published:
        if known.md5 == md5:
            return known
    raise ArchiveError(
        f"{path} is not an official CIFAR-100 archive: its MD5 is {md5}, expected "
        + " or ".join(f"{k.md5} ({Path(k.url).name})" for k in published)
        + ".",
        f"Download it again from {CIFAR_PAGE}; an interrupted or altered copy has another checksum.",
    )


def download(archive: CifarArchive, cache_dir: Path, progress: Progress | None = None) -> Path:
    """Download an archive into `cache_dir` unless it is there, and return its path. An interrupted download goes on where it stopped.

    The file gets its name only after its checksum was verified. Raises DownloadError at once when the host cannot be reached, ArchiveError
    when what came is something else.
    """
    target = cache_dir / Path(archive.url).name
    if target.is_file():
        return target
    cache_dir.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    have = partial.stat().st_size if partial.is_file() else 0
    if have < archive.size:
        _fetch(archive, partial, have, progress)
    try:
        identify(partial, [archive])
    except ArchiveError as error:
        partial.unlink(missing_ok=True)  # going on from a wrong start would never come right
        raise ArchiveError(
            f"What {archive.url} sent is not the official archive. {error.message}", "Stage again to download it anew."
        ) from error
    os.replace(partial, target)
    return target


def _fetch(archive: CifarArchive, partial: Path, have: int, progress: Progress | None) -> None:
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    hint = (
        f"Where there is no network: download it elsewhere from {CIFAR_PAGE} and stage `cifar100:/path/to/{partial.stem}`, "
        "stage a folder of images of your own, or stage `sample`."
    )
    try:
        with urllib.request.urlopen(request, timeout=_CONNECT_SECONDS) as response:
            # A server that does not know Range sends everything.
            resumes = response.status == http.HTTPStatus.PARTIAL_CONTENT
            done = have if resumes else 0
            with partial.open("ab" if resumes else "wb") as out:
                while chunk := response.read(_CHUNK):
                    out.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(ProgressEvent(StagingPhase.DOWNLOAD, done, archive.size))
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{archive.url} answered {error.code} {error.reason}.", hint) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DownloadError(f"{archive.url} cannot be downloaded: {reason}.", hint) from error
    except OSError as error:
        raise DownloadError(
            f"{partial} cannot be written: {error.strerror or error}.", "Free some space or choose another folder, then stage again."
        ) from error
    if done < archive.size:
        raise DownloadError(
            f"{archive.url}: the connection ended after {done:,} of {archive.size:,} bytes.",
            "Stage again: the download goes on from there.",
        )


def _folder_name(md5: str, classes: Sequence[str]) -> str:
    choice = hashlib.sha256("\n".join(classes).encode()).hexdigest()[:12]
    return f"cifar-100-{md5[:8]}-{choice}"


def _extract(archive: Path, kind: CifarFormat, classes: Sequence[str], folder: Path, progress: Progress | None) -> None:
    from PIL import Image

    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        names, splits = _read(archive, kind)
        indices = _class_indices(names, classes)
        done = 0
        for split, records in splits.items():
            for label in classes:
                (scratch / split / label).mkdir(parents=True)
            for number, (fine, pixels, name) in enumerate(records(frozenset(indices))):
                # Stored as a plane of red, one of green, one of blue.
                planes = [Image.frombytes("L", (_SIDE, _SIDE), pixels[start : start + 1024]) for start in range(0, _PIXEL_BYTES, 1024)]
                Image.merge("RGB", planes).save(scratch / split / indices[fine] / (name or f"{split}-{number:05d}.png"), "PNG")
                done += 1
                if progress is not None:
                    progress(ProgressEvent(StagingPhase.EXTRACT, done, None))
        scratch.chmod(0o755)
        scratch.rename(folder)
    except (tarfile.TarError, EOFError, PickleDataError, KeyError, ValueError) as error:
        raise ArchiveError(f"{archive} is damaged: {error}", f"Download it again from {CIFAR_PAGE}.") from error
    except OSError as error:
        raise ArchiveError(
            f"{error.filename or archive}: {error.strerror or error}.", "Free some space or choose another folder, then stage again."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


# Records of the wanted fine labels: (fine label, 3072 bytes, file name or "").
_Records = Callable[[frozenset[int]], Iterator[tuple[int, bytes, str]]]


def _read(archive: Path, kind: CifarFormat) -> tuple[list[str], dict[Split, _Records]]:
    """The 100 class names and, per split, its records. One pass over the archive, about 190 MB in memory."""
    names_member, suffix = ("fine_label_names.txt", ".bin") if kind is CifarFormat.BINARY else ("meta", "")
    names: list[str] | None = None
    splits: dict[Split, _Records] = {}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isfile() else None
            if stream is None:
                continue
            member_name = Path(member.name).name
            if member_name == names_member:
                names = (
                    stream.read().decode("utf-8").split()
                    if kind is CifarFormat.BINARY
                    else _strings(read_pickle_data(stream), "fine_label_names")
                )
            for split in Split:
                if member_name == f"{split}{suffix}":
                    splits[split] = _binary_records(stream.read()) if kind is CifarFormat.BINARY else _python_records(stream)
    if names is None or len(splits) != len(Split):
        raise ValueError("it does not hold the training images, the test images and the class names")
    return names, splits


def _binary_records(content: bytes) -> _Records:
    # One record: coarse label, fine label, pixels.
    size = 2 + _PIXEL_BYTES
    if not content or len(content) % size:
        raise ValueError(f"{len(content)} bytes are not a whole number of {size}-byte records")

    def records(wanted: frozenset[int]) -> Iterator[tuple[int, bytes, str]]:
        for start in range(0, len(content), size):
            if content[start + 1] in wanted:
                yield content[start + 1], content[start + 2 : start + size], ""

    return records


def _python_records(stream: IO[bytes]) -> _Records:
    document = read_pickle_data(stream)
    data, labels, names = document["data"], document["fine_labels"], _strings(document, "filenames")
    if not isinstance(data, ByteArray) or data.shape != (len(labels), _PIXEL_BYTES) or len(names) != len(labels):
        raise ValueError("its images, labels and names do not agree")

    def records(wanted: frozenset[int]) -> Iterator[tuple[int, bytes, str]]:
        for row, fine in enumerate(labels):
            if fine in wanted:
                yield fine, data.content[row * _PIXEL_BYTES : (row + 1) * _PIXEL_BYTES], Path(names[row]).name

    return records


def _strings(document: object, key: str) -> list[str]:
    values = document.get(key) if isinstance(document, dict) else None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"it has no list {key!r}")
    return values


def _class_indices(names: Sequence[str], classes: Sequence[str]) -> dict[int, str]:
    indices = {}
    for name in classes:
        if name not in names:
            near = get_close_matches(name, names, 3)
            raise UnknownClassError(
                f"CIFAR-100 has no class {name!r}.",
                f"Did you mean {' or '.join(near)}?" if near else f"Its classes: {', '.join(sorted(names))}.",
            )
        indices[names.index(name)] = name
    return indices
