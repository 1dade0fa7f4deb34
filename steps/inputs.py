"""The images a processing job is given: a staged prefix with its manifest, or a plain folder of class folders."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from failures import StepError

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 1
IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class InputImage:
    """An image file of the input.

    `source`: what people know it by. `sha256`: what the manifest says of its bytes, None without one. `in_test`: whether the input itself
    puts it into the test split.
    """

    file: Path
    label: str
    source: str
    sha256: str | None
    in_test: bool


@dataclass(frozen=True, slots=True)
class InputData:
    """What lies in the input.

    `digest`: the staged data set's, None without a manifest. `has_test`: whether it brings its own test images. `unlisted`: files that are
    not used.
    """

    source: str
    labels: tuple[str, ...]
    images: tuple[InputImage, ...]
    digest: str | None
    has_test: bool
    unlisted: tuple[str, ...]


def read_input(root: Path) -> InputData:
    """Read what the input holds, without opening an image. Raises StepError when it is no data set or its manifest is damaged."""
    if not root.is_dir():
        raise StepError(f"The input {root} is not a folder. Give the staged data's prefix as the job's input.")
    if (root / MANIFEST_NAME).is_file():
        return _staged(root)
    if [path.name for path in root.iterdir()] == ["images"]:
        raise StepError(
            f"{root} has images but no {MANIFEST_NAME}: staging did not finish. Stage the data again; it goes on where it stopped."
        )
    return _plain(root)


def dataset_digest(images: Iterable[tuple[str, str, str | None]]) -> str:
    """SHA-256 (hex) over the sorted (label, sha256, split), split being "train", "test" or None: the name of a staged data set's prefix."""
    digest = hashlib.sha256()
    for line in sorted(json.dumps([label, sha256, split]) for label, sha256, split in images):
        digest.update(line.encode("ascii") + b"\n")
    return digest.hexdigest()


def _staged(root: Path) -> InputData:
    path = root / MANIFEST_NAME
    try:
        manifest: Any = json.loads(path.read_text(encoding="utf-8"))
        if manifest["version"] != MANIFEST_VERSION:
            raise StepError(f"{path} has version {manifest['version']!r}, this job reads version {MANIFEST_VERSION}. Stage the data again.")
        rows = [(str(row["label"]), str(row["sha256"]), row["split"]) for row in manifest["images"]]
        images = tuple(_listed(root, row) for row in manifest["images"])
        data = InputData(
            source=str(manifest["source"]),
            labels=tuple(sorted(str(label) for label in manifest["labels"])),
            images=images,
            digest=str(manifest["dataset_digest"]),
            has_test=any(image.in_test for image in images),
            unlisted=_unlisted(root, images),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StepError(f"{path} is damaged: {type(error).__name__}: {error}. Stage the data again.") from error
    if dataset_digest(rows) != data.digest:
        raise StepError(f"{path} does not describe the data set it names ({data.digest}): it was changed. Stage the data again.")
    return data


def _listed(root: Path, row: Any) -> InputImage:
    path, sha256, split = PurePosixPath(row["path"]), str(row["sha256"]), row["split"]
    if path.is_absolute() or ".." in path.parts or not _SHA256.fullmatch(sha256) or split not in (None, "train", "test"):
        raise ValueError(f"bad entry {row!r}")
    return InputImage(root / path, str(row["label"]), str(row["source"]), sha256, split == "test")


def _unlisted(root: Path, images: Iterable[InputImage]) -> tuple[str, ...]:
    listed = {image.file for image in images} | {root / MANIFEST_NAME}
    return tuple(sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and path not in listed))


def _plain(root: Path) -> InputData:
    folders = _folders(root)
    split_layout = {path.name for path in folders} == {"train", "test"} and all(_folders(path) for path in folders)
    images: list[InputImage] = []
    unlisted: list[str] = []
    for part in folders if split_layout else [root]:
        for folder in _folders(part):
            for path in sorted(folder.rglob("*")):
                source = path.relative_to(root)
                if not path.is_file() or any(name.startswith(".") for name in source.parts):
                    continue
                if path.suffix.lower() in IMAGE_EXTENSIONS:
                    images.append(InputImage(path, folder.name, source.as_posix(), None, split_layout and part.name == "test"))
                else:
                    unlisted.append(source.as_posix())
    if not images:
        raise StepError(
            f"{root} holds no images: expected a staged data set ({MANIFEST_NAME}), or one folder per class with png, jpg, webp or bmp files."
        )
    labels = tuple(sorted({image.label for image in images}))
    return InputData(root.name, labels, tuple(images), None, split_layout, tuple(unlisted))


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
