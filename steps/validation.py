"""Is a file an image to learn from? If so: its pixels as every later step reads them, and what is measured on them."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from duplicates import Fingerprint, fingerprint
from imaging import FORMATS, MAX_PIXELS, ImageError, decode, pixels


class RejectReason(StrEnum):
    """Why a file is kept out of the data set."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    CHANGED = "changed"
    UNKNOWN_CLASS = "unknown_class"
    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    DAMAGED = "damaged"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    ANIMATED = "animated"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that is kept out, and why, in words."""

    reason: RejectReason
    detail: str


@dataclass(frozen=True, slots=True)
class ImageRules:
    """What an image must be. `min_side`: pixels that each side must have. `max_side`: pixels to which a longer side is shrunk."""

    min_side: int
    max_side: int


@dataclass(frozen=True, slots=True)
class Inspected:
    """A usable image.

    `png`: RGB, 8 bits, upright, no side longer than the rules' `max_side`. `file_sha256`: of the file. `pixel_sha256`: of size and pixels,
    equal for images that look exactly alike. `width`, `height`: of the file, in pixels. `channel_means`, `channel_stds`: red, green, blue,
    0-255. `brightness`: mean luma (ITU-R BT.601), 0-255.
    """

    png: bytes
    file_sha256: str
    pixel_sha256: str
    width: int
    height: int
    channel_means: tuple[float, float, float]
    channel_stds: tuple[float, float, float]
    brightness: float
    fingerprint: Fingerprint


def inspect_file(path: Path, expected_sha256: str | None, rules: ImageRules) -> Inspected | Rejected:
    """Read a file and judge it. `expected_sha256`: what the manifest says of its bytes, if there is one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Rejected(RejectReason.MISSING, "the manifest lists it, the input does not hold it")
    except OSError as error:
        return Rejected(RejectReason.UNREADABLE, f"it cannot be read: {error.strerror or error}")
    digest = hashlib.sha256(content).hexdigest()
    if expected_sha256 is not None and digest != expected_sha256:
        return Rejected(
            RejectReason.CHANGED, f"its bytes are not those that were staged (SHA-256 {digest[:12]}..., expected {expected_sha256[:12]}...)"
        )
    return inspect_image(content, digest, rules)


def inspect_image(content: bytes, digest: str, rules: ImageRules) -> Inspected | Rejected:
    """Judge the bytes of one file, whose SHA-256 is `digest`. Never raises for what the bytes are."""
    header = _header(content, rules)
    if isinstance(header, Rejected):
        return header
    try:
        image = decode(content, rules.max_side)
    except ImageError as error:
        return Rejected(RejectReason.DAMAGED, str(error))
    array = pixels(image)
    flat = array.reshape(-1, 3).astype(np.float32)
    means, stds = flat.mean(axis=0), flat.std(axis=0)
    png = io.BytesIO()
    image.save(png, "PNG")
    return Inspected(
        png=png.getvalue(),
        file_sha256=digest,
        pixel_sha256=hashlib.sha256(f"{image.width}x{image.height}:".encode() + array.tobytes()).hexdigest(),
        width=header[0],
        height=header[1],
        channel_means=(float(means[0]), float(means[1]), float(means[2])),
        channel_stds=(float(stds[0]), float(stds[1]), float(stds[2])),
        brightness=float(means @ np.array([0.299, 0.587, 0.114], dtype=np.float32)),
        fingerprint=fingerprint(image),
    )


def _header(content: bytes, rules: ImageRules) -> tuple[int, int] | Rejected:
    """The image's width and height, from its header alone: what follows may be a bomb."""
    if not content:
        return Rejected(RejectReason.EMPTY, "it has 0 bytes")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                return Rejected(RejectReason.TOO_MANY_PIXELS, f"{width} x {height} pixels, more than {MAX_PIXELS:,}")
            if min(width, height) < rules.min_side:
                return Rejected(RejectReason.TOO_SMALL, f"{width} x {height} pixels, each side must have at least {rules.min_side}")
            frames = getattr(image, "n_frames", 1)
            # Phones write JPEG files with a second picture (preview, depth) behind the first: no animation.
            if frames > 1 and image.format != "MPO":
                return Rejected(RejectReason.ANIMATED, f"it is animated ({frames} frames)")
            # Decoding a PNG does not look at its checksums.
            image.verify()
            return width, height
    except UnidentifiedImageError:
        return Rejected(RejectReason.NOT_AN_IMAGE, f"its content is none of {', '.join(FORMATS)}, whatever its name says")
    except Image.DecompressionBombError as error:
        return Rejected(RejectReason.TOO_MANY_PIXELS, str(error))
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error) as error:
        return Rejected(RejectReason.DAMAGED, f"it is damaged or incomplete: {error}")
