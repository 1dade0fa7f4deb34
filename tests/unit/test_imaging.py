"""Images as phones and scanners write them."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from imaging import ImageError, decode


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_phone_photo_with_a_second_picture_is_its_first_picture() -> None:
    first, second = Image.new("RGB", (64, 48), (200, 10, 10)), Image.new("RGB", (64, 48), (10, 10, 200))
    photo = encoded(first, "MPO", save_all=True, append_images=[second])
    assert getattr(Image.open(io.BytesIO(photo)), "n_frames", 1) == 2, "the test must really hold two pictures"
    decoded = decode(photo)
    assert decoded.mode == "RGB"
    red, _, blue = decoded.resize((1, 1)).tobytes()
    assert red > 150 > blue


def test_an_animation_is_refused() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green")]
    with pytest.raises(ImageError, match="animated"):
        decode(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
