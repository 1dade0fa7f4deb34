"""From an image file's bytes to the pixels the network takes; the same code in training, evaluation and serving.

Depends on numpy and Pillow only: it travels inside the model artifact.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
# A photo of 100 megapixels is 300 MB in memory: what a decoder must never be made to do by a file of a few kilobytes.
MAX_PIXELS = 100_000_000
MIN_SIDE = 2

# What Pillow's decoders raise on damaged files (UnidentifiedImageError is an OSError).
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
)


class ImageError(ValueError):
    """Indicates that bytes are not an image that can be classified; the text is the reason, for people."""


def decode(content: bytes, limit: int | None = None) -> Image.Image:
    """Return the image as RGB, 8 bits, turned upright (EXIF), no side longer than `limit` pixels.

    Transparency is put on white; 16-bit images keep their upper 8 bits; CMYK is converted. A side longer than `limit` is shrunk to it with
    antialiasing, each side by itself: the network's input is a square, so the aspect ratio goes in any case. Raises ImageError for anything
    that is not a complete single image in one of `FORMATS` of at most `MAX_PIXELS` pixels.
    """
    if not content:
        raise ImageError("the image is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(f"the image has {width} x {height} pixels, more than {MAX_PIXELS}")
            if min(width, height) < MIN_SIDE:
                raise ImageError(f"the image has {width} x {height} pixels; each side must have at least {MIN_SIDE}")
            # MPO: what many phones write for an ordinary photo, a JPEG with a second picture (depth, gain map) behind the first.
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                raise ImageError("the image is animated; send a single frame")
            if limit is not None:
                # Lets the JPEG decoder leave out resolution that is not needed (by halves, never below twice the limit).
                image.draft("RGB", (2 * limit, 2 * limit))
            image.load()
            return shrink(_upright_rgb(image), limit)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        # Pillow's own limit, which it looks at first, is higher.
        raise ImageError(f"the image has more than {MAX_PIXELS} pixels") from None
    except UnidentifiedImageError:
        raise ImageError(f"the bytes are not an image in one of the formats {', '.join(FORMATS)}") from None
    except _DECODER_ERRORS as error:
        raise ImageError(f"the image is damaged or incomplete: {error}") from error


def shrink(image: Image.Image, limit: int | None) -> Image.Image:
    """The image with each side at most `limit` pixels: Pillow's bicubic filter, which widens with the factor (antialiasing)."""
    if limit is None or max(image.size) <= limit:
        return image
    return image.resize((min(image.width, limit), min(image.height, limit)), Image.Resampling.BICUBIC, reducing_gap=3.0)


def pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """An RGB image as uint8 [height, width, 3]."""
    return np.asarray(image, dtype=np.uint8)


def _upright_rgb(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image) if image.getexif() else image
    if upright.mode == "RGB":
        return upright
    if upright.mode.startswith("I"):  # 16-bit greyscale ("I;16", "I;16B"; "I" in older Pillow)
        values = np.asarray(upright).astype(np.int64)
        return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        layered = upright.convert("RGBA")
        background = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(background, layered).convert("RGB")
    return upright.convert("RGB")
