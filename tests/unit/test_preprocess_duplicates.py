"""steps/duplicates.py: copies of a picture are found, different pictures are not, and groups are what the pairs connect."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from duplicates import Fingerprint, find_near_duplicates, fingerprint, group
from staging.sample import sample_photos


def picture(seed: int) -> Image.Image:
    """A random smooth picture with contrast, as photos have."""
    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return coarse.resize((48, 48), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return Image.open(io.BytesIO(content.getvalue())).convert("RGB")


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": lambda image: jpeg(image, 60),
    "enlarged": lambda image: image.resize((192, 192), Image.Resampling.BICUBIC),
    "shrunk": lambda image: image.resize((24, 24), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.2),
    "pale": lambda image: ImageEnhance.Color(image).enhance(0.5),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(0.5)),
    "mirrored": ImageOps.mirror,
    "mirrored jpeg": lambda image: jpeg(ImageOps.mirror(image), 75),
    "stretched": lambda image: image.resize((96, 48)),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_and_nothing_else(kind: str) -> None:
    originals = [picture(seed) for seed in range(30)]
    copies = [COPIES[kind](image) for image in originals]
    pairs = find_near_duplicates([fingerprint(image) for image in originals + copies])
    assert pairs == [(number, number + 30) for number in range(30)]


def test_drawn_pictures_are_all_different() -> None:
    images = [Image.open(io.BytesIO(photo.image)) for photo in sample_photos(200)]
    assert find_near_duplicates([fingerprint(image) for image in images]) == []


def test_flat_pictures_are_not_alike_for_want_of_features() -> None:
    chance = np.random.default_rng(0)
    flat = [Image.fromarray((200 + chance.integers(-2, 3, (32, 32, 3))).astype(np.uint8)) for _ in range(20)]
    plain = [Image.new("RGB", (32, 32), colour) for colour in ("red", "navy", "white", "black")]
    assert find_near_duplicates([fingerprint(image) for image in flat + plain]) == []


def test_similarity_above_one_switches_it_off() -> None:
    same = fingerprint(picture(1))
    assert find_near_duplicates([same, same], 1.0) == [(0, 1)]
    assert find_near_duplicates([same, same], 1.01) == []
    assert find_near_duplicates([]) == []
    assert find_near_duplicates([same]) == []


def test_the_result_does_not_depend_on_the_order() -> None:
    images = [fingerprint(copy(picture(seed))) for seed in range(8) for copy in COPIES.values()]
    order = np.random.default_rng(3).permutation(len(images))
    straight = find_near_duplicates(images)
    shuffled = find_near_duplicates([images[i] for i in order])
    assert sorted(tuple(sorted((int(order[a]), int(order[b])))) for a, b in shuffled) == straight


def test_hundreds_of_look_alikes_stay_one_group() -> None:
    # More than a bucket's window: each meets its neighbours, and the chain holds them together.
    image = fingerprint(picture(5))
    many = [Fingerprint(image.hash, image.mirrored_hash, image.thumbnail)] * 600
    assert set(group(len(many), find_near_duplicates(many))) == {0}


@given(count=st.integers(1, 30), data=st.data())
def test_groups_are_the_connected_components(count: int, data: st.DataObject) -> None:
    node = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(node, node), max_size=40))
    groups = group(count, pairs)
    reachable = [{i} for i in range(count)]
    for _ in range(count):
        for a, b in pairs:
            union = reachable[a] | reachable[b]
            for member in union:
                reachable[member] |= union
    assert groups == [min(members) for members in reachable]
