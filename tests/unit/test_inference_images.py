"""What becomes of an image file's bytes: read rightly, or refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

import imaging
from imaging import ImageError, decode, pixels


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, (250, 10, 10))
    image.paste((10, 10, 250), (size[0] // 2, 0, size[0], size[1]))
    return image.convert(mode)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, and has no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "LA", "1"])
def test_every_mode_of_every_format_becomes_rgb(kind: str, mode: str) -> None:
    try:
        content = encoded(halves(mode), kind, **({"quality": 95} if kind == "JPEG" else {}))
    except OSError:
        return  # the format has no such mode
    image = decode(content)
    assert (image.mode, image.size) == ("RGB", (40, 20))
    if mode not in ("L", "LA", "1"):
        left, right = image.getpixel((5, 10)), image.getpixel((35, 10))
        assert isinstance(left, tuple)
        assert isinstance(right, tuple)
        assert left[0] > 200 > 100 > left[2]
        assert right[2] > 180 > 100 > right[0]


def test_sixteen_bit_greyscale_keeps_its_upper_bits() -> None:
    values = np.array([[0, 256 * 100], [65535, 256 * 7]], dtype=np.uint16).repeat(4, 0).repeat(4, 1)
    image = pixels(decode(encoded(Image.fromarray(values))))
    assert image[::4, ::4, 0].tolist() == [[0, 100], [255, 7]]


def test_transparency_is_put_on_white() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decode(encoded(image)).getpixel((3, 3)) == (255, 255, 255)


def test_opaque_rgba_keeps_its_pixels() -> None:
    original = halves("RGBA")
    assert np.array_equal(pixels(decode(encoded(original))), pixels(original.convert("RGB")))


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned: rotate a quarter clockwise to view
    image = decode(encoded(halves(), "JPEG", exif=exif.tobytes(), quality=95))
    assert image.size == (20, 40)
    top, bottom = image.getpixel((10, 5)), image.getpixel((10, 35))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[0] > 200
    assert bottom[2] > 200


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_large_photo_is_shrunk_with_antialiasing(kind: str) -> None:
    # One-pixel black and white stripes: only a filter that looks at all of them gives grey.
    stripes = np.zeros((900, 1200, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    image = pixels(decode(encoded(Image.fromarray(stripes), kind), 128))
    assert image.shape == (128, 128, 3)
    assert np.abs(image[4:-4, 4:-4].astype(int) - 127).max() < 12


def test_only_sides_that_are_too_long_are_shrunk() -> None:
    assert decode(encoded(halves(size=(300, 20))), 128).size == (128, 20)
    assert decode(encoded(halves(size=(30, 20))), 128).size == (30, 20)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am a text file called photo.png", "not an image"),
        (encoded(halves(), "GIF"), "not an image in one of the formats"),
        (encoded(halves(), "TIFF"), "not an image in one of the formats"),
        (encoded(halves(size=(300, 300)), "JPEG")[:900], "damaged or incomplete"),
        (encoded(Image.effect_noise((300, 300), 50))[:5000], "damaged or incomplete"),
        (encoded(halves(size=(300, 300)), "WEBP")[:60], "damaged or incomplete|not an image"),
        (png_header(60_000, 60_000), "^the image has more than 100000000 pixels$"),
        (png_header(500, 500), "damaged or incomplete"),
        (encoded(Image.new("RGB", (1, 50))), "each side must have at least 2"),
        (encoded(Image.new("F", (9, 9)), "TIFF"), "not an image"),
        (encoded(halves(), "PNG", save_all=True, append_images=[Image.new("RGB", (40, 20))]), "animated"),
        (encoded(halves(), "WEBP", save_all=True, append_images=[Image.new("RGB", (40, 20))]), "animated"),
    ],
)
def test_what_cannot_be_classified_is_refused_with_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(content, 128)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = encoded(Image.new("L", (100, 100)))
    monkeypatch.setattr(imaging, "MAX_PIXELS", 1000)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("the pixels were unpacked"))
    with pytest.raises(ImageError, match="more than 1000"):
        decode(photo)


@given(st.binary(max_size=300), st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]), st.data())
def test_damaged_bytes_are_an_image_or_an_image_error(junk: bytes, kind: str, data: st.DataObject) -> None:
    whole = encoded(halves(), kind)
    start = data.draw(st.integers(0, len(whole)))
    for content in (junk, whole[:start] + junk, whole[:start] + junk + whole[start + len(junk) :]):
        try:
            image = decode(content, 32)
        except ImageError:
            continue
        else:
            assert image.mode == "RGB"
            assert max(image.size) <= 32
