"""The frozen trunk's features of every training image, computed once.

Training only the tail on cached features is what makes a good model in a minute on two cores; on CPUs the trunk runs in onnxruntime, which
is several times faster than PyTorch's eager mode.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from augment import Augmentation, augmented_copies
from backbone import Backbone, Normalise, resize
from failures import StepError
from graph import FEATURES, IMAGES, write_graph
from recipe import Recipe

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]

_BATCH = 16


class Trunk:
    """Stem and frozen blocks: byte images [N, height, width, 3] of any size to features [N, C, h, w]. Several threads may call it at once."""

    def __init__(self, backbone: Backbone, recipe: Recipe, device: torch.device) -> None:
        blocks = list(backbone.blocks)[: recipe.frozen_blocks]
        self._size = recipe.image_size
        self._device = device
        if device.type == "cpu":
            import onnxruntime

            options = onnxruntime.SessionOptions()
            # Batches run side by side instead of one on several threads: nobody waits for the slowest, which counts when the cores are busy.
            options.intra_op_num_threads = 1
            options.log_severity_level = 3
            content = write_graph(backbone.stem, blocks, recipe.image_size)
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        else:
            self._network = torch.nn.Sequential(Normalise(), backbone.stem, *blocks).to(device).eval()

    def __call__(self, images: Pixels) -> Tensor:
        """Features on the CPU, float32."""
        if self._device.type == "cpu":
            return torch.from_numpy(self._session.run([FEATURES], {IMAGES: images})[0])
        with torch.no_grad():
            features: Tensor = self._network(resize(torch.from_numpy(images).to(self._device), self._size))
            return features.cpu()


def features_of(trunk: Trunk, images: Sequence[Pixels], *, mirrored: bool = False) -> Tensor:
    """Features [N, C, h, w] of images of any sizes, or of their mirror images."""

    def compute(batch: Pixels) -> Tensor:
        return trunk(np.ascontiguousarray(batch[:, :, ::-1]) if mirrored else batch)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return torch.cat(list(pool.map(compute, equal_batches(images, _BATCH))))


def equal_batches(images: Sequence[Pixels], most: int) -> Iterator[Pixels]:
    """Runs of images of equal size, stacked, in order, at most `most` at a time."""
    start = 0
    for end in range(1, len(images) + 1):
        if end == len(images) or images[end].shape != images[start].shape or end - start == most:
            yield np.stack(images[start:end])
            start = end


def cached_features(trunk: Trunk, images: Sequence[Pixels], indices: Sequence[int], recipe: Recipe) -> Tensor:
    """Features [copies, N, C, h, w]: of the originals, their mirror images, and augmented copies up to `recipe.copies`.

    `indices`: each image's number in the whole training split, which with the recipe's seed decides how its copies are augmented. Raises
    StepError when not even the originals fit into `recipe.cache_gigabytes`.
    """
    originals = features_of(trunk, images)
    affordable = int(recipe.cache_gigabytes * 1e9 // max(1, originals.nbytes))
    if affordable < 1:
        raise StepError(
            f"the features of {len(images)} images take {originals.nbytes / 1e9:.1f} GB, more than --cache-gigabytes "
            f"{recipe.cache_gigabytes}; raise it, or train with --full-fine-tuning true"
        )
    copies = min(recipe.copies, affordable)
    if copies < recipe.copies:
        logger.warning("Only %d of %d copies of each image fit into --cache-gigabytes %s", copies, recipe.copies, recipe.cache_gigabytes)
    cache = torch.empty((copies, *originals.shape))
    cache[0] = originals
    if copies > 1:
        cache[1] = features_of(trunk, images, mirrored=True)

    def fill(copy: int, start: int) -> None:
        part = slice(start, start + _BATCH)
        seeds = [(recipe.seed, index, copy) for index in indices[part]]
        cache[copy, part] = trunk(augmented_copies(images[part], recipe.image_size, seeds, Augmentation()))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        parts = [(copy, start) for copy in range(2, copies) for start in range(0, len(images), _BATCH)]
        for _ in pool.map(lambda part: fill(*part), parts):
            pass
    return cache
