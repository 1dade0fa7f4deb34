"""steps/validation.py: each kind of bad image is rejected with its reason, each odd but good one is read rightly."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from validation import ImageRules, Inspected, Rejected, RejectReason, inspect_file, inspect_image

RULES = ImageRules(min_side=16, max_side=64)


def gradient(width: int = 48, height: int = 32) -> Image.Image:
    """Red grows to the right, green downwards: what is turned, mirrored or mixed up shows."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.dstack([x, y, np.full_like(x, 90)]).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def judge(content: bytes, rules: ImageRules = RULES) -> Inspected | Rejected:
    return inspect_image(content, hashlib.sha256(content).hexdigest(), rules)


def read(content: bytes, rules: ImageRules = RULES) -> np.ndarray:
    result = judge(content, rules)
    assert isinstance(result, Inspected), result
    with Image.open(io.BytesIO(result.png)) as image:
        assert image.mode == "RGB"
        assert image.format == "PNG"
        return np.asarray(image).astype(int)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(side: int) -> bytes:
    """A valid header that promises side x side pixels, in a file of a few hundred bytes."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped_in_pixel_data(content: bytes) -> bytes:
    at = content.index(b"IDAT") + 40
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


FRAMES = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", RejectReason.EMPTY, id="zero bytes"),
        pytest.param(b"This is no picture at all.\n" * 20, RejectReason.NOT_AN_IMAGE, id="text renamed .png"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", RejectReason.NOT_AN_IMAGE, id="svg"),
        pytest.param(encoded(gradient(), "GIF"), RejectReason.NOT_AN_IMAGE, id="gif renamed .png"),
        pytest.param(encoded(gradient(), "TIFF"), RejectReason.NOT_AN_IMAGE, id="tiff renamed .jpg"),
        pytest.param(encoded(gradient())[:7], RejectReason.NOT_AN_IMAGE, id="cut within the signature"),
        pytest.param(half(encoded(gradient())), RejectReason.DAMAGED, id="truncated png"),
        pytest.param(half(encoded(gradient(), "JPEG")), RejectReason.DAMAGED, id="truncated jpeg"),
        pytest.param(half(encoded(gradient(), "WEBP")), RejectReason.DAMAGED, id="truncated webp"),
        pytest.param(half(encoded(gradient(), "BMP")), RejectReason.DAMAGED, id="truncated bmp"),
        pytest.param(encoded(gradient())[:-12], RejectReason.DAMAGED, id="png without its end"),
        pytest.param(flipped_in_pixel_data(encoded(gradient())), RejectReason.DAMAGED, id="png with a flipped bit"),
        pytest.param(png_bomb(12_000), RejectReason.TOO_MANY_PIXELS, id="144 megapixels in 100 bytes"),
        pytest.param(png_bomb(60_000), RejectReason.TOO_MANY_PIXELS, id="decompression bomb"),
        pytest.param(encoded(gradient(15, 200)), RejectReason.TOO_SMALL, id="too narrow"),
        pytest.param(encoded(gradient(200, 15)), RejectReason.TOO_SMALL, id="too low"),
        pytest.param(encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), RejectReason.ANIMATED, id="animated webp"),
        pytest.param(encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), RejectReason.ANIMATED, id="animated png"),
    ],
)
def test_bad_images_are_rejected_with_their_reason(content: bytes, reason: RejectReason) -> None:
    result = judge(content)
    assert isinstance(result, Rejected)
    assert result.reason is reason
    assert len(result.detail) > 10


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_every_format_is_read(kind: str) -> None:
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    assert np.abs(read(encoded(gradient(), kind, **options)) - np.asarray(gradient()).astype(int)).mean() < 4


def test_cmyk_becomes_the_same_colours() -> None:
    array = read(encoded(Image.new("RGB", (32, 32), (200, 40, 60)).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(array.mean(axis=(0, 1)) - (200, 40, 60)).max() < 8


def test_sixteen_bit_grey_keeps_its_levels() -> None:
    levels = np.repeat(np.array([[0, 16_384, 32_768, 65_535]], dtype=np.uint16), 8, axis=1).repeat(16, axis=0)
    array = read(encoded(Image.fromarray(levels)))
    assert [array[0, column].tolist() for column in (0, 8, 16, 24)] == [[0] * 3, [64] * 3, [128] * 3, [255] * 3]


def test_sixteen_bit_colour_keeps_its_levels() -> None:
    row = b"\0" + struct.pack(">HHH", 51_200, 10_240, 15_360) * 20
    header = struct.pack(">IIBBBBB", 20, 20, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 20)) + chunk(b"IEND", b"")
    assert np.abs(read(content) - (200, 40, 60)).max() <= 1


def test_transparency_is_put_on_white() -> None:
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((200, 40, 60, 255), (0, 0, 16, 32))
    image.paste((200, 40, 60, 128), (0, 16, 16, 32))
    array = read(encoded(image))
    assert array[0, 20].tolist() == [255, 255, 255]
    assert array[0, 4].tolist() == [200, 40, 60]
    assert np.abs(array[20, 4] - (227, 147, 157)).max() <= 1


def test_opaque_rgba_is_the_rgb_it_was() -> None:
    assert (read(encoded(gradient().convert("RGBA"))) == np.asarray(gradient())).all()


def test_palette_with_a_transparent_colour_is_put_on_white() -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([10, 20, 30, 200, 40, 60] + [0] * 750)
    image.paste(0, (0, 0, 16, 32))
    array = read(encoded(image, transparency=0))
    assert array[0, 4].tolist() == [255, 255, 255]
    assert array[0, 20].tolist() == [200, 40, 60]


@pytest.mark.parametrize(("mode", "fill", "expected"), [("1", 1, 255), ("L", 77, 77), ("LA", (77, 255), 77)])
def test_black_and_white_and_grey_become_rgb(mode: str, fill: object, expected: int) -> None:
    assert (read(encoded(Image.new(mode, (20, 20), fill))) == expected).all()  # type: ignore[arg-type]


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    array = read(encoded(gradient(), "JPEG", quality=95, exif=exif))
    upright = np.asarray(gradient().rotate(-90, expand=True)).astype(int)
    assert array.shape == (48, 32, 3)
    assert np.abs(array - upright).mean() < 6


@pytest.mark.parametrize(("size", "expected"), [((640, 32), (64, 32)), ((64, 64), (64, 64)), ((20, 30), (20, 30))])
def test_only_sides_above_the_limit_shrink(size: tuple[int, int], expected: tuple[int, int]) -> None:
    array = read(encoded(gradient(*size)))
    assert (array.shape[1], array.shape[0]) == expected


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((512, 512, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    array = read(encoded(Image.fromarray(stripes)))
    assert np.abs(array - 127.5).max() < 8


def test_measures_are_of_the_pixels() -> None:
    result = judge(encoded(Image.new("RGB", (40, 20), (100, 150, 200))))
    assert isinstance(result, Inspected)
    assert (result.width, result.height) == (40, 20)
    assert result.channel_means == pytest.approx((100, 150, 200))
    assert result.channel_stds == pytest.approx((0, 0, 0))
    assert result.brightness == pytest.approx(0.299 * 100 + 0.587 * 150 + 0.114 * 200, abs=1e-3)


def test_width_and_height_are_the_files_before_shrinking() -> None:
    result = judge(encoded(gradient(300, 200)))
    assert isinstance(result, Inspected)
    assert (result.width, result.height) == (300, 200)


def test_equal_pixels_have_equal_digests_in_any_lossless_format() -> None:
    digests = set()
    for content in (
        encoded(gradient()),
        encoded(gradient(), "BMP"),
        encoded(gradient(), "WEBP", lossless=True),
        encoded(gradient().convert("RGBA")),
    ):
        result = judge(content)
        assert isinstance(result, Inspected)
        digests.add(result.pixel_sha256)
    assert len(digests) == 1
    other = judge(encoded(gradient(32, 48)))
    assert isinstance(other, Inspected)
    assert other.pixel_sha256 not in digests


def test_odd_file_names_are_read(tmp_path: Path) -> None:
    for name in ("été 1.png", "a b+c #&%.png", "自転車.png", "'quoted\".png"):
        (tmp_path / name).write_bytes(encoded(gradient()))
        assert isinstance(inspect_file(tmp_path / name, None, RULES), Inspected)


def test_a_file_that_is_missing_or_not_what_was_staged(tmp_path: Path) -> None:
    content = encoded(gradient())
    (tmp_path / "a.png").write_bytes(content)
    assert isinstance(inspect_file(tmp_path / "a.png", hashlib.sha256(content).hexdigest(), RULES), Inspected)
    changed = inspect_file(tmp_path / "a.png", "0" * 64, RULES)
    assert isinstance(changed, Rejected)
    assert changed.reason is RejectReason.CHANGED
    missing = inspect_file(tmp_path / "b.png", None, RULES)
    assert isinstance(missing, Rejected)
    assert missing.reason is RejectReason.MISSING
    unreadable = inspect_file(tmp_path, None, RULES)
    assert isinstance(unreadable, Rejected)
    assert unreadable.reason is RejectReason.UNREADABLE


SEEDS: list[Callable[[], bytes]] = [
    lambda: encoded(gradient()),
    lambda: encoded(gradient().quantize(16)),
    lambda: encoded(gradient(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    lambda: encoded(gradient(), "WEBP"),
    lambda: encoded(gradient(), "BMP"),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    keep=st.floats(0.05, 1),
)
@settings(max_examples=400)
def test_damage_of_any_kind_is_a_verdict_never_an_exception(
    seed: Callable[[], bytes], changes: list[tuple[float, int]], keep: float
) -> None:
    content = bytearray(seed())
    for place, value in changes:
        # Headers are short; half of the changes hit the first 64 bytes.
        content[int(place * 2 * 64) if place < 0.5 else int(place * len(content))] = value
    result = judge(bytes(content[: int(len(content) * keep)]))
    assert isinstance(result, Inspected | Rejected)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(content=st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_get_a_verdict(content: bytes) -> None:
    for prefix in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\x40\0\0\0WEBPVP8 ", b"BM"):
        assert isinstance(judge(prefix + content), Inspected | Rejected)
