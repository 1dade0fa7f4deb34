"""What staging works on: images on disk with their classes, and the manifest that describes them in S3."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

MANIFEST_VERSION = 1
MANIFEST_NAME = "manifest.json"


class Split(StrEnum):
    """The split that the source itself gives an image."""

    TRAIN = "train"
    TEST = "test"


class StagingPhase(StrEnum):
    """What staging is busy with, in order; a source goes through some of them."""

    DOWNLOAD = "download"
    EXTRACT = "extract"
    DRAW = "draw"
    READ = "read"
    COMPARE = "compare"
    UPLOAD = "upload"


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """How far a phase is: `done` of `total` (None: unknown), in bytes for DOWNLOAD, else in images (objects for COMPARE)."""

    phase: StagingPhase
    done: int
    total: int | None


# Always called from the thread that called `stage` or `prepare`.
Progress = Callable[[ProgressEvent], None]


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image file.

    `label`: its folder's name. `source`: its path relative to the source, as people know it. `sha256`, `size` (bytes): of the file's
    content. `split`: given by the source, or None.
    """

    file: Path
    label: str
    source: str
    sha256: str
    size: int
    split: Split | None

    @property
    def path(self) -> str:
        """Where the image lies below the data set's prefix: by content, so equal files are one object and odd names do no harm."""
        extension = self.file.suffix.lower()
        return f"images/{self.label}/{self.sha256}{'.jpg' if extension == '.jpeg' else extension}"


@dataclass(frozen=True, slots=True)
class IgnoredFile:
    """A file that was left out, and why."""

    source: str
    reason: str

    def __str__(self) -> str:
        """ "path: reason"."""
        return f"{self.source}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A source that was read and found fit: two classes or more with enough images each. `notes`: sentences on how it was understood."""

    source: str
    labels: tuple[str, ...]
    images: tuple[SourceImage, ...]
    ignored: tuple[IgnoredFile, ...]
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Images per class, in label order."""
        counts = Counter(image.label for image in self.images)
        return {label: counts[label] for label in self.labels}

    @property
    def digest(self) -> str:
        """The data set's identity, see `dataset_digest`."""
        return dataset_digest((image.label, image.sha256, image.split) for image in self.images)

    def conflicts(self) -> list[tuple[str, ...]]:
        """Groups of sources that hold the same file under different labels; the preprocessing step refuses them unless told otherwise."""
        groups: defaultdict[str, list[SourceImage]] = defaultdict(list)
        for image in self.images:
            groups[image.sha256].append(image)
        return [tuple(image.source for image in group) for group in groups.values() if len({image.label for image in group}) > 1]

    def manifest(self) -> dict[str, Any]:
        """The manifest (docs/architecture.md, "Staged data"): a JSON object, images in the order of their paths."""
        return {
            "version": MANIFEST_VERSION,
            "dataset_digest": self.digest,
            "source": self.source,
            "labels": list(self.labels),
            "images": [
                {
                    "path": image.path,
                    "label": image.label,
                    "sha256": image.sha256,
                    "size": image.size,
                    "source": image.source,
                    "split": image.split,
                }
                for image in self.images
            ],
        }


@dataclass(frozen=True, slots=True)
class StagedDataset:
    """A data set in S3.

    `uri`: its prefix, ending in "/". `counts`: images per class. `uploaded`, `skipped`: objects sent, objects that were there already.
    `warnings`: what the person should know, e.g. the same image in two classes.
    """

    uri: str
    digest: str
    counts: Mapping[str, int]
    uploaded: int
    skipped: int
    manifest: Mapping[str, Any]
    ignored: tuple[IgnoredFile, ...]
    warnings: tuple[str, ...]


def dataset_digest(images: Iterable[tuple[str, str, str | None]]) -> str:
    """SHA-256 (hex) over the sorted (label, sha256, split): what can be learnt from, whatever the files were called."""
    digest = hashlib.sha256()
    # None sorts before any split name; JSON keeps (label, sha256) pairs apart whatever characters a label has.
    for line in sorted(json.dumps([label, sha256, split]) for label, sha256, split in images):
        digest.update(line.encode("ascii") + b"\n")
    return digest.hexdigest()


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as JSON with one image per line, so that it can be compared and searched by line."""
    head = {key: value for key, value in manifest.items() if key != "images"}
    lines = ",\n".join(json.dumps(image, ensure_ascii=False) for image in manifest["images"])
    return (json.dumps(head, ensure_ascii=False)[:-1] + ', "images": [\n' + lines + "\n]}\n").encode("utf-8")
