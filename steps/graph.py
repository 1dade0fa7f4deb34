"""The network as an ONNX graph, written operation by operation: no tracing, no exporter packages, equal weights give equal bytes.

Input `images`: uint8 [N, height, width, 3] (RGB), any height and width; inside: bicubic resize to the network's size, normalisation,
padding, convolutions. Output: `features` (a trunk) or `logits` [N, classes] (a whole model).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from backbone import MEAN, SCALE, Block, Convolution, same_padding

if TYPE_CHECKING:
    from torch import nn

# Resize has `axes` since opset 18; IR 8 is what came with it, so that every onnxruntime since 1.14 (2023) reads the file.
OPSET = 18
IR_VERSION = 8
IMAGES = "images"
FEATURES = "features"
LOGITS = "logits"


@dataclass
class _Builder:
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, values: npt.NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operation, inputs, [output], name=output, **attributes))
        return output

    def scalar(self, value: float) -> str:
        name = f"scalar_{value}"
        if all(constant.name != name for constant in self.constants):
            self.constant(name, np.array(value, dtype=np.float32))
        return name

    def images(self, image_size: int) -> str:
        """Byte images to normalised floats [N, 3, S, S]: R_h X R_w' with the two interpolation matrices of `resampling`. (onnxruntime's own
        cubic Resize takes 2.6 ms for a 32-pixel image on one core, this 0.2 ms, and it has Pillow's antialiasing.)"""
        floats = self.add("Cast", [IMAGES], "floats", to=TensorProto.FLOAT)
        planes = self.add("Transpose", [floats], "planes", perm=[0, 3, 1, 2])
        self.add("Shape", [IMAGES], "shape")
        rows = self.resampling("rows", 1, image_size)
        columns = self.add("Transpose", [self.resampling("columns", 2, image_size)], "columns_transposed", perm=[1, 0])
        resized = self.add("MatMul", [self.add("MatMul", [rows, planes], "resized_rows"), columns], "resized")
        clipped = self.add("Clip", [resized, self.scalar(0.0), self.scalar(255.0)], "clipped")
        centred = self.add("Sub", [clipped, self.scalar(MEAN)], "centred")
        return self.add("Mul", [centred, self.scalar(1 / SCALE)], "normalised")

    def resampling(self, name: str, axis: int, image_size: int) -> str:
        """The matrix [S, L] that resamples a line of L pixels (the length of `axis`) to S, as Pillow's BICUBIC does it: pixel i of the result
        looks at c = (i + 0.5) L / S - 0.5 with weights K((j - c) / max(L / S, 1)), made to sum to 1. K is the cubic convolution kernel with
        a = -0.5 (R. Keys, "Cubic convolution interpolation for digital image processing", 1981)."""
        zero, one = self.constant(f"{name}_0", np.array(0)), self.constant(f"{name}_1", np.array(1))
        axis_index = self.constant(f"{name}_axis", np.array(axis))
        length = self.add("Gather", ["shape", axis_index], f"{name}_length", axis=0)
        length_float = self.add("Cast", [length], f"{name}_length_float", to=TensorProto.FLOAT)
        ratio = self.add("Mul", [length_float, self.scalar(1 / image_size)], f"{name}_ratio")
        pixels = self.add("Cast", [self.add("Range", [zero, length, one], f"{name}_range")], f"{name}_pixels", to=TensorProto.FLOAT)
        middles = self.constant(f"{name}_middles", np.arange(image_size, dtype=np.float32)[:, None] + np.float32(0.5))
        centres = self.add("Sub", [self.add("Mul", [middles, ratio], f"{name}_scaled"), self.scalar(0.5)], f"{name}_centres")
        offsets = self.add("Sub", [pixels, centres], f"{name}_offsets")
        width = self.add("Max", [ratio, self.scalar(1.0)], f"{name}_width")
        distance = self.add("Abs", [self.add("Div", [offsets, width], f"{name}_relative")], f"{name}_distance")
        x = self.add("Min", [distance, self.scalar(2.0)], f"{name}_x")
        inner = self.polynomial(f"{name}_inner", x, (1.5, -2.5, 0.0, 1.0))
        outer = self.polynomial(f"{name}_outer", x, (-0.5, 2.5, -4.0, 2.0))
        near = self.add("Less", [x, self.scalar(1.0)], f"{name}_near")
        weights = self.add("Where", [near, inner, outer], f"{name}_weights")
        last = self.constant(f"{name}_last", np.array([1]))
        total = self.add("ReduceSum", [weights, last], f"{name}_total", keepdims=1)
        return self.add("Div", [weights, total], f"{name}_matrix")

    def polynomial(self, name: str, x: str, coefficients: tuple[float, ...]) -> str:
        """Horner's scheme, highest power first."""
        value = self.scalar(coefficients[0])
        for power, coefficient in enumerate(coefficients[1:]):
            value = self.add("Mul", [value, x], f"{name}_mul_{power}")
            if coefficient:
                value = self.add("Add", [value, self.scalar(coefficient)], f"{name}_add_{power}")
        return value

    def convolution(self, module: Convolution, source: str, name: str, size: int) -> tuple[str, int]:
        kernel, stride = module.kernel_size[0], module.stride[0]
        before, after = same_padding(size, kernel, stride)
        weight = self.constant(f"{name}.weight", _array(module.weight))
        assert module.bias is not None
        bias = self.constant(f"{name}.bias", _array(module.bias))
        output = self.add(
            "Conv",
            [source, weight, bias],
            name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            group=module.groups,
            pads=[before, before, after, after],
        )
        if module.activate:
            output = self.add("Clip", [output, self.scalar(0.0), self.scalar(6.0)], f"{name}.relu6")
        return output, -(-size // stride)

    def block(self, block: Block, source: str, name: str, size: int) -> tuple[str, int]:
        output = source
        if block.expand is not None:
            output, size = self.convolution(block.expand, output, f"{name}.expand", size)
        output, size = self.convolution(block.depthwise, output, f"{name}.depthwise", size)
        output, size = self.convolution(block.project, output, f"{name}.project", size)
        if block.residual:
            output = self.add("Add", [source, output], f"{name}.sum")
        return output, size


def write_graph(
    stem: Convolution,
    blocks: Iterable[nn.Module],
    image_size: int,
    head: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None = None,
) -> bytes:
    """Return the ONNX file of stem and blocks, and, with `head` = (weight [classes, channels], bias [classes]), mean pooling and a linear
    layer after them. `image_size`: pixels of the square the network sees."""
    builder = _Builder()
    output = builder.images(image_size)
    output, size = builder.convolution(stem, output, "stem", image_size)
    channels = stem.out_channels
    for index, block in enumerate(blocks):
        assert isinstance(block, Block)
        output, size = builder.block(block, output, f"blocks.{index}", size)
        channels = block.project.out_channels
    if head is None:
        builder.add("Identity", [output], FEATURES)
        result = helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", channels, size, size])
    else:
        weight, bias = head
        pooled = builder.add("GlobalAveragePool", [output], "pooled")
        flat = builder.add("Flatten", [pooled], "flat", axis=1)
        names = [builder.constant("head.weight", weight.astype(np.float32)), builder.constant("head.bias", bias.astype(np.float32))]
        builder.add("Gemm", [flat, *names], LOGITS, transB=1)
        result = helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", len(bias)])
    images = helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["batch", "height", "width", 3])
    graph = helper.make_graph(builder.nodes, "classifier", [images], [result], builder.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="scones")
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _array(tensor: object) -> npt.NDArray[np.float32]:
    from torch import Tensor

    assert isinstance(tensor, Tensor)
    values: npt.NDArray[np.float32] = tensor.detach().cpu().numpy().astype(np.float32)
    return values
