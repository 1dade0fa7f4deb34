"""Random copies of training images: geometry and colour, deterministic for a seed.

Geometry (scale, aspect, rotation, shift, flip) is one affine map, resampled once, straight to the network's size; what comes from outside
the image is its mirror image. Colour is changed before, on the original's fewer pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Ranges to draw from, uniformly. `scale`: factor on the vehicle's size. `aspect`: +- exponent of e, width against height. `rotation`:
    +- degrees. `shift`: +- share of the side. `brightness`, `contrast`, `saturation`: +- share."""

    scale: tuple[float, float] = (0.8, 1.15)
    aspect: float = 0.125
    rotation: float = 10.0
    shift: float = 0.06
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.4


def augmented(image: Pixels, size: int, random: np.random.Generator, ranges: Augmentation) -> Pixels:
    """One random copy of a uint8 RGB image [height, width, 3], as [size, size, 3]."""
    coloured = _recolour(image, random, ranges)
    height, width = image.shape[:2]
    # Half of each side, mirrored on every edge, is more than the largest map reaches.
    pad_y, pad_x = height // 2, width // 2
    padded = np.pad(coloured, ((pad_y, pad_y), (pad_x, pad_x), (0, 0)), mode="symmetric")
    scale = random.uniform(*ranges.scale)
    aspect = np.exp(random.uniform(-ranges.aspect, ranges.aspect) / 2)
    angle = np.deg2rad(random.uniform(-ranges.rotation, ranges.rotation))
    shift_x, shift_y = random.uniform(-ranges.shift, ranges.shift, 2)
    mirror = -1.0 if random.random() < 0.5 else 1.0
    # Output pixel (u, v) in [-1/2, 1/2] takes its colour from rotation * diag(1/sx, 1/sy) * (u, v) + shift, in shares of the side.
    cosine, sine = np.cos(angle), np.sin(angle)
    stretch_x, stretch_y = mirror / (scale * aspect), aspect / scale
    a, b = cosine * stretch_x, -sine * stretch_y
    d, e = sine * stretch_x, cosine * stretch_y
    centre = 0.5
    matrix = (
        a * width / size,
        b * width / size,
        (0.5 + shift_x - (a + b) * centre) * width + pad_x,
        d * height / size,
        e * height / size,
        (0.5 + shift_y - (d + e) * centre) * height + pad_y,
    )
    mapped = Image.fromarray(padded).transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(mapped, dtype=np.uint8)


def augmented_copies(images: Sequence[Pixels], size: int, seeds: Sequence[Sequence[int]], ranges: Augmentation, threads: int = 1) -> Pixels:
    """One copy per image, [N, size, size, 3]; `seeds[i]` seeds image i's generator, so that the result does not depend on threads or order."""

    def make(index: int) -> Pixels:
        return augmented(images[index], size, np.random.default_rng(seeds[index]), ranges)

    if threads == 1:
        return np.stack([make(index) for index in range(len(images))])
    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(make, range(len(images)))))


def _recolour(image: Pixels, random: np.random.Generator, ranges: Augmentation) -> Pixels:
    brightness, contrast, saturation = (1 + random.uniform(-r, r) for r in (ranges.brightness, ranges.contrast, ranges.saturation))
    values = image.astype(np.float32) * np.float32(brightness)
    grey = values @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # luma of ITU-R BT.601
    values = grey.mean() + (values - grey.mean()) * np.float32(contrast)
    grey = grey.mean() + (grey - grey.mean()) * np.float32(contrast)
    values = grey[..., None] + (values - grey[..., None]) * np.float32(saturation)
    rounded: Pixels = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return rounded
