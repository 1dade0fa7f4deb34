"""Small labelled images, shards and recipes for the tests of the training, evaluation and serving steps."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from recipe import Recipe, TrainingPaths
from shards import Sample, write_shards
from tracking import Run
from training import train

# The tests run side by side already, and these networks are too small for two threads.
torch.set_num_threads(1)

LABELS = ("blue", "green", "red")
DIGEST = "0123456789abcdef" * 4
# The smallest network that still has a frozen and a trained part.
TINY = Recipe(image_size=32, frozen_blocks=2, blocks=4, epochs=2, batch_size=8, copies=3, learning_rate=2e-3)


def png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """A PNG file of uint8 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def picture(label: str, number: int, size: tuple[int, int] = (20, 24)) -> bytes:
    """A noisy image in its label's colour, with a stripe somewhere."""
    random = np.random.default_rng([LABELS.index(label), number])
    pixels = random.integers(0, 120, (*size, 3))
    pixels[..., {"red": 0, "green": 1, "blue": 2}[label]] += 110
    start = int(random.integers(0, size[0] - 4))
    pixels[start : start + 3] = random.integers(0, 255)
    return png(pixels.clip(0, 255).astype(np.uint8))


def write_split(folder: Path, split: str, labels: Sequence[str] = LABELS[:2], per_label: int = 10, first: int = 0) -> Path:
    """Shards with `per_label` pictures of each label."""
    samples = []
    for number in range(first, first + per_label):
        for label in labels:
            image = picture(label, number)
            samples.append(Sample(f"{label}-{number}", label, image, f"{label}/{number}.png", hashlib.sha256(image).hexdigest()))
    write_shards(samples, folder / split, labels=tuple(sorted(labels)), split=split, dataset_digest=DIGEST)
    return folder / split


def write_splits(folder: Path, labels: Sequence[str] = LABELS[:2], per_label: int = 10) -> None:
    """All three splits, the training one twice as large."""
    write_split(folder, "train", labels, 2 * per_label)
    write_split(folder, "validation", labels, per_label, first=1000)
    write_split(folder, "test", labels, per_label, first=2000)


def paths_in(folder: Path, *, name: str = "out", checkpoints: bool = False) -> TrainingPaths:
    """Paths of a training job on the splits in `folder`."""
    out = folder / name
    return TrainingPaths(
        folder / "train", folder / "validation", out / "model", out / "data", out, out / "checkpoints" if checkpoints else None
    )


def trained_artifact(folder: Path, labels: Sequence[str] = LABELS[:2]) -> Path:
    """Train on small splits in `folder`; the model's folder."""
    write_splits(folder, labels)
    paths = paths_in(folder)
    train(TINY, paths, Run(None))
    return paths.model_dir


def pack(model_dir: Path, folder: Path) -> Path:
    """`model.tar.gz` of a model's folder, in `folder`, as SageMaker packs it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "model.tar.gz", "w:gz") as archive:
        archive.add(model_dir, arcname=".")
    return folder


def read_json(path: Path) -> dict[str, object]:
    """A JSON object."""
    value: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return value
