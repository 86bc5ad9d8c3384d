"""The weights in an ONNX file: how many of them are zero, and how small they pack."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

WEIGHTED = ("Conv", "Gemm", "MatMul")


def sparsity(model: bytes) -> float:
    """Share of exact zeros among the weights of convolutions and linear layers; 0.0 without any.

    Biases do not count. A quantized weight is zero where it equals its zero point.
    """
    zeros = list(_zeros(onnx.load_from_string(model).graph))
    total = sum(where.size for where in zeros)
    return float(sum(where.sum() for where in zeros) / total) if total else 0.0


def _zeros(graph: onnx.GraphProto) -> Iterator[NDArray[np.bool_]]:
    """Where the weights of each weighted node are zero."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    dequantizers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type in WEIGHTED:
            for name in node.input[:2]:
                dequantizer = dequantizers.get(name)
                source = dequantizer.input[0] if dequantizer else name
                if source in constants:
                    weights = numpy_helper.to_array(constants[source])
                    yield weights == (_zero_point(dequantizer, constants, weights.ndim) if dequantizer else 0)


def _zero_point(
    dequantizer: onnx.NodeProto, constants: dict[str, onnx.TensorProto], dimensions: int
) -> NDArray[np.integer]:
    """The zero point, one a tensor or one a channel, in a shape that is broadcast over the weights."""
    if len(dequantizer.input) < 3:
        return np.array(0)
    zero = numpy_helper.to_array(constants[dequantizer.input[2]])
    axis = next((a.i for a in dequantizer.attribute if a.name == "axis"), 1)
    shape = [1] * dimensions
    if zero.ndim:
        shape[axis] = -1
    return zero.reshape(shape)


def packed_size(model: bytes) -> int:
    """Bytes of the file after zlib at level 9 (DEFLATE, RFC 1951), as packages and HTTP pack it."""
    return len(zlib.compress(model, 9))
