"""The first layer of a graph on squares of pixels, which have become channels (space to depth).

Integer kernels gather the channels of one pixel after another, and an image has three: that is what takes their time, not
the products. Means over squares of pixels they take number by number. A convolution that moves by several pixels, or
reads such means, computes the same from an image of fewer and deeper pixels.

H, W, C: of the image; S: the side of a square.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

FEW = 4  # channels; more of them are gathered well as they are


def in_squares(images_NHWC: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """[N, H / S, W / S, S * S * C], the rows of each square one after another, pixel by pixel."""
    count, height, width, channels = images_NHWC.shape
    rows = images_NHWC.reshape(count, height // side, side, width // side, side * channels)
    return rows.transpose(0, 1, 3, 2, 4).reshape(count, height // side, width // side, -1)


def fold_stem(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a float graph that takes images `in_squares`, normalised, and computes the same; where its first layer
    is nothing to do that with, a copy that takes images as they are."""
    model = copy.deepcopy(model)
    graph = model.graph
    given = graph.input[0]
    dims = given.type.tensor_type.shape.dim
    channels, height, width = (dim.dim_value for dim in dims[1:])
    pool = _only_reader(graph, given.name, "AveragePool")
    conv = _only_reader(graph, pool.output[0] if pool else given.name, "Conv")
    if conv is None or channels > FEW or _attribute(conv, "group", 1) != 1:
        return model
    strides, pads = _attribute(conv, "strides", [1, 1]), _attribute(conv, "pads", [0, 0, 0, 0])
    side = _side(pool) if pool else strides[0]
    if side < 2 or height % side or width % side or len({1, *_attribute(conv, "dilations", [1])}) > 1:
        return model
    weights = next(i for i in graph.initializer if i.name == conv.input[1])
    kernel_OCRS = numpy_helper.to_array(weights)
    if pool:  # each weight goes to all pixels of a square
        kernel_OCRS = np.tile(kernel_OCRS, (1, side * side, 1, 1)) / side**2
        conv.input[0] = given.name
        graph.node.remove(pool)
    elif strides[0] == strides[1]:
        kernel_OCRS, pads = _on_squares(kernel_OCRS, side, pads, (height, width))
        strides = [1, 1]
    else:
        return model
    weights.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(kernel_OCRS, np.float32), weights.name))
    del conv.attribute[:]
    values = {"kernel_shape": kernel_OCRS.shape[2:], "strides": strides, "pads": pads}
    conv.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())
    for dim, value in zip(dims[1:], (channels * side * side, height // side, width // side), strict=True):
        dim.dim_value = value
    return model


def _only_reader(graph: onnx.GraphProto, name: str, operator: str) -> onnx.NodeProto | None:
    """The node that reads a tensor, if no other does and it is this operator."""
    readers = [node for node in graph.node if name in node.input]
    return readers[0] if [node.op_type for node in readers] == [operator] else None


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _side(pool: onnx.NodeProto) -> int:
    """The side of the squares whose means these are; 1 if they are no squares side by side."""
    shape, strides = _attribute(pool, "kernel_shape", []), _attribute(pool, "strides", [1, 1])
    plain = not any(_attribute(pool, "pads", [0])) and not _attribute(pool, "ceil_mode", 0)
    return int(shape[0]) if plain and list(strides) == list(shape) and len(set(shape)) == 1 else 1


def _on_squares(
    kernel_OCRS: NDArray[np.float32], side: int, pads: list[int], height_width: tuple[int, int]
) -> tuple[NDArray[np.float32], list[int]]:
    """The kernel, and its padding, of a convolution that moves by `side` pixels, on squares.

    Its row u reads row S y + u - pad of the image: row (u - pad) mod S of square y + (u - pad) div S. Columns likewise.
    """
    before, after, inner = [], [], []
    for size, pixels, pad, pad_after in zip(
        kernel_OCRS.shape[2:], height_width, pads[:2], pads[2:], strict=True
    ):
        squares = -(-pad // side)  # of padding
        length = squares + (size - 1 - pad) // side + 1
        outputs = (pixels + pad + pad_after - size) // side + 1
        start = side * squares - pad
        inner.append((start, side * length - start - size))
        before.append(squares)
        after.append(outputs - 1 + length - squares - pixels // side)
    out, channels = kernel_OCRS.shape[:2]
    padded = np.pad(kernel_OCRS, ((0, 0), (0, 0), *inner))
    rows, columns = padded.shape[2] // side, padded.shape[3] // side
    squares_OCRSRS = padded.reshape(out, channels, rows, side, columns, side)
    folded = squares_OCRSRS.transpose(0, 3, 5, 1, 2, 4).reshape(out, -1, rows, columns)
    return folded, [*before, *after]
