"""The weights in an ONNX file: how many of them are zero, and how small they pack."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

WEIGHTED = ("Conv", "Gemm", "MatMul")  # the operators that hold what was learned
INTEGER = ("ConvInteger", "MatMulInteger")  # and their forms in dynamic quantization


def sparsity(model: bytes) -> float:
    """Share of exact zeros among the weights of convolutions and linear layers; 0.0 without any.

    Biases do not count. A quantized weight is zero where it equals its zero point.
    """
    zeros = list(_zeros(onnx.load_from_string(model).graph))
    total = sum(where.size for where in zeros)
    return float(sum(where.sum() for where in zeros) / total) if total else 0.0


def _zeros(graph: onnx.GraphProto) -> Iterator[NDArray[np.bool_]]:
    """Where the weights of each weighted node are zero."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {
        node.output[0]: node for node in graph.node if node.op_type in ("DequantizeLinear", "Cast", "Mul")
    }
    for node in graph.node:
        if node.op_type in WEIGHTED:
            for stored in node.input[:2]:
                name, zero = stored, None
                while name in producers:
                    producer = producers[name]
                    zero = producer if producer.op_type == "DequantizeLinear" else zero
                    name = producer.input[0]
                if (weights := constants.get(name)) is not None:
                    yield weights == (_zero_point(zero, constants, weights.ndim) if zero else 0)
        elif node.op_type in INTEGER and node.input[1] in constants:
            yield constants[node.input[1]] == constants.get(node.input[3], 0)


def _zero_point(
    producer: onnx.NodeProto, constants: dict[str, NDArray[np.generic]], dimensions: int
) -> NDArray[np.generic]:
    """The zero point, one a tensor or one a channel, in a shape that is broadcast over the weights."""
    if len(producer.input) < 3:
        return np.array(0)
    zero = constants[producer.input[2]]
    axis = next((a.i for a in producer.attribute if a.name == "axis"), 1)
    shape = [1] * dimensions
    if zero.ndim:
        shape[axis] = -1
    return zero.reshape(shape)


def packed_size(model: bytes) -> int:
    """Bytes of the file after zlib at level 9 (DEFLATE, RFC 1951), as packages and HTTP pack it."""
    return len(zlib.compress(model, 9))
