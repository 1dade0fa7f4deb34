"""Shards: the files in which one job hands labelled images to the next.

A split (train, validation or test) is a folder of tar files `shard-00000.tar`, `shard-00001.tar`, ... in the layout of the WebDataset
convention (members that belong together share the name before the first dot and stand next to each other): `<key>.png` with the image and
`<key>.json` with `{"label", "source", "sha256"}`. `dataset.json` beside them names the labels and counts the images; it is written last, so
a folder without it is half-written. The same samples in the same order give the same bytes, which is what content-addressed storage and
step caching need.

Both directions stream: memory is bounded by one image, not by the size of the data set.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATASET_INFO_NAME = "dataset.json"
DEFAULT_MAX_SHARD_BYTES = 128 * 1024 * 1024
_SHARD_PATTERN = "shard-*.tar"
# A dot would end the key for every WebDataset reader; 80 keeps `<key>.json` within the 100 bytes of a plain ustar name.
_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")


class ShardError(Exception):
    """Indicates that a folder of shards is missing, incomplete or damaged, or that samples given to the writer do not fit together."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image.

    `key`: unique within a split, letters, digits, `-` and `_`. `image`: a PNG file's bytes (RGB, 8 bits). `source`: the path that the
    person who brought the image knows it by. `sha256`: hex digest of the staged file's own bytes (not of `image`), which finds it in the
    manifest.
    """

    key: str
    label: str
    image: bytes
    source: str
    sha256: str


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What a folder of shards holds.

    `labels`: sorted class names of the whole data set (index = class index of the model). `counts`: images per label in this split (a label
    without images counts 0). `dataset_digest`: digest of the staged data it was made from. `split`: "train", "validation" or "test".
    """

    labels: tuple[str, ...]
    counts: Mapping[str, int]
    dataset_digest: str
    split: str

    @property
    def total(self) -> int:
        """Number of images in the split."""
        return sum(self.counts.values())


def write_shards(
    samples: Iterable[Sample],
    directory: Path | str,
    *,
    labels: Sequence[str],
    split: str,
    dataset_digest: str,
    max_shard_bytes: int = DEFAULT_MAX_SHARD_BYTES,
) -> DatasetInfo:
    """Write samples, in the order given, as shards of at most `max_shard_bytes` bytes each (more only when a single image is larger than
    that).

    The folder is made when missing and must hold no shards yet. Raises ShardError for an unknown label, a repeated or malformed key, labels
    that are not sorted and distinct, or a folder that already holds shards; then no `dataset.json` is written.
    """
    target = Path(directory)
    if list(labels) != sorted(set(labels)):
        raise ShardError(f"labels must be sorted and distinct, not {list(labels)}")
    if max_shard_bytes < 1:
        raise ShardError(f"max_shard_bytes must be at least 1, not {max_shard_bytes}")
    target.mkdir(parents=True, exist_ok=True)
    if (target / DATASET_INFO_NAME).exists() or any(target.glob(_SHARD_PATTERN)):
        raise ShardError(f"{target} already holds shards; give an empty folder")
    known = set(labels)
    counts: Counter[str] = Counter()
    keys: set[str] = set()
    archive: tarfile.TarFile | None = None
    shard_bytes = 0
    number = 0
    try:
        for sample in samples:
            if sample.label not in known:
                raise ShardError(f"{sample.source}: label {sample.label!r} is none of {list(labels)}")
            if not _KEY.fullmatch(sample.key):
                raise ShardError(f"{sample.source}: key {sample.key!r} must be 1 to 80 letters, digits, '-' or '_'")
            if sample.key in keys:
                raise ShardError(f"{sample.source}: key {sample.key!r} was used before")
            keys.add(sample.key)
            meta = json.dumps({"label": sample.label, "source": sample.source, "sha256": sample.sha256}, sort_keys=True).encode("ascii")
            size = _member_bytes(len(sample.image)) + _member_bytes(len(meta))
            if archive is not None and shard_bytes + size > max_shard_bytes:
                archive.close()
                archive = None
            if archive is None:
                archive = tarfile.open(target / f"shard-{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
                number += 1
                # A tar file ends in two empty blocks and is padded to a whole record.
                shard_bytes = tarfile.RECORDSIZE
            _add(archive, f"{sample.key}.png", sample.image)
            _add(archive, f"{sample.key}.json", meta)
            shard_bytes += size
            counts[sample.label] += 1
    finally:
        if archive is not None:
            archive.close()
    info = DatasetInfo(tuple(labels), {label: counts[label] for label in labels}, dataset_digest, split)
    document = {"labels": list(info.labels), "counts": dict(info.counts), "dataset_digest": dataset_digest, "split": split}
    (target / DATASET_INFO_NAME).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return info


def read_shards(directory: Path | str) -> Iterator[Sample]:
    """Yield every sample of a folder of shards, in the order written.

    Raises ShardError when the folder has no `dataset.json`, when a shard is damaged, and, after the last sample, when the number of images
    per label is not the one `dataset.json` states (a shard that is missing must not pass for a smaller data set).
    """
    source = Path(directory)
    info = read_dataset_info(source)
    counts: Counter[str] = Counter()
    for path in sorted(source.glob(_SHARD_PATTERN)):
        for sample in _read_shard(path):
            counts[sample.label] += 1
            yield sample
    found = {label: counts[label] for label in info.labels}
    if found != dict(info.counts) or sum(counts.values()) != info.total:
        raise ShardError(
            f"{source}: the shards hold {dict(counts)}, {DATASET_INFO_NAME} says {dict(info.counts)}; a shard is missing or was replaced"
        )


def read_dataset_info(directory: Path | str) -> DatasetInfo:
    """Read `dataset.json`. Raises ShardError when it is missing or is not what `write_shards` writes."""
    path = Path(directory) / DATASET_INFO_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ShardError(f"{path} does not exist: the folder holds no shards, or the job that wrote them did not finish") from None
    except (OSError, ValueError) as error:
        raise ShardError(f"{path} cannot be read: {error}") from error
    try:
        labels = tuple(str(label) for label in document["labels"])
        counts = {str(label): int(count) for label, count in document["counts"].items()}
        info = DatasetInfo(labels, counts, str(document["dataset_digest"]), str(document["split"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ShardError(f"{path} is not a data set description: {error!r}") from error
    if set(labels) != set(counts):
        raise ShardError(f"{path}: labels {list(labels)} and counts of {sorted(counts)} do not agree")
    return info


def _read_shard(path: Path) -> Iterator[Sample]:
    try:
        # "r|": strictly forward, so a shard may also be a pipe, and tarfile keeps no list of members to seek in.
        with tarfile.open(path, "r|") as archive:
            image: tuple[str, bytes] | None = None
            for member in archive:
                key, _, kind = member.name.partition(".")
                handle = archive.extractfile(member)
                if handle is None:
                    raise ShardError(f"{path}: member {member.name!r} is not a file")
                content = handle.read()
                if kind == "png" and image is None:
                    image = (key, content)
                elif kind == "json" and image is not None and image[0] == key:
                    yield _sample(path, key, image[1], content)
                    image = None
                else:
                    raise ShardError(f"{path}: member {member.name!r} is out of place; a shard alternates <key>.png and <key>.json")
            if image is not None:
                raise ShardError(f"{path}: {image[0]}.png has no {image[0]}.json")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ShardError(f"{path} is damaged: {error}") from error


def _sample(path: Path, key: str, image: bytes, content: bytes) -> Sample:
    try:
        meta: Any = json.loads(content)
        return Sample(key, str(meta["label"]), image, str(meta["source"]), str(meta["sha256"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ShardError(f"{path}: {key}.json is not a sample's description: {error!r}") from error


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # owner, mode and time are constants: equal samples, equal bytes
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _member_bytes(size: int) -> int:
    """Bytes of one member in a tar file: a header block and whole blocks of content."""
    return tarfile.BLOCKSIZE * (1 + -(-size // tarfile.BLOCKSIZE))
