"""The labelled images of one split, in memory, ready for the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from failures import StepError
from imaging import ImageError, decode, pixels
from shards import ShardError, read_dataset_info, read_shards


@dataclass(frozen=True)
class LabelledImages:
    """`images[i]`: uint8 RGB [height, width, 3], no side longer than the limit it was read with; `targets[i]`: index into `labels`."""

    labels: tuple[str, ...]
    dataset_digest: str
    images: Sequence[npt.NDArray[np.uint8]]
    targets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)


def read_images(directory: Path, limit: int) -> LabelledImages:
    """Read a folder of shards, each side of each image shrunk to at most `limit` pixels. Raises StepError when the folder or an image in it
    cannot be read."""
    try:
        info = read_dataset_info(directory)
        index = {label: position for position, label in enumerate(info.labels)}
        images: list[npt.NDArray[np.uint8]] = []
        targets: list[int] = []
        for sample in read_shards(directory):
            try:
                images.append(pixels(decode(sample.image, limit)))
            except ImageError as error:
                raise StepError(f"{directory}: image {sample.key} ({sample.source}): {error}") from error
            targets.append(index[sample.label])
    except ShardError as error:
        raise StepError(str(error)) from error
    return LabelledImages(info.labels, info.dataset_digest, images, np.array(targets, dtype=np.int64))


def check_trainable(train: LabelledImages, validation: LabelledImages) -> None:
    """Raise StepError unless there are at least two classes, each with images to train on, and validation images of the same data set."""
    if len(train.labels) < 2:
        raise StepError(f"a classifier needs at least two classes; the training split has {len(train.labels)}: {', '.join(train.labels)}")
    counts = np.bincount(train.targets, minlength=len(train.labels))
    empty = [label for label, count in zip(train.labels, counts, strict=True) if count == 0]
    if empty:
        raise StepError(f"the training split has no image of: {', '.join(empty)}; stage more images of it or remove the class")
    if validation.labels != train.labels or validation.dataset_digest != train.dataset_digest:
        raise StepError(
            f"train and validation are not splits of one data set: labels {list(train.labels)} and {list(validation.labels)}, "
            f"digests {train.dataset_digest} and {validation.dataset_digest}"
        )
    if len(validation) == 0:
        raise StepError("the validation split has no image; the temperature cannot be set without one")
