"""Whether 8-bit sums overflow on this processor, and whether a model has weights that make them.

Without integer dot products (VNNI), x86 multiplies u8 activations by s8 weights and adds each pair in 16
bits: 2 * 255 * 127 does not fit, and is cut to 32767 without a word. Weights of 7 bits, up to 64 in
magnitude, always fit.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

CHANNELS, SIDE = 64, 8  # enough for ONNX Runtime to take its integer kernels
SAFE = 64  # 2 * 255 * 64 = 32640 fits into 16 bits


@functools.cache
def u8s8_saturates() -> bool:
    """Whether ONNX Runtime gets a convolution of u8 by s8 wrong here. Found by trying: all activations are
    255 and all weights 127, so that the sum is the largest there is, and is known."""
    images_NCHW = np.full((1, CHANNELS, SIDE, SIDE), 255, np.uint8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    graph = _largest_sum().SerializeToString()
    run = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (sums_NCHW,) = run.run(None, {"image": images_NCHW})
    return bool((sums_NCHW != 255).any())


def has_8bit_weights(model: Path) -> bool:
    """Whether weights of an ONNX file are s8 and so large that two products may not fit into 16 bits."""
    arrays = (numpy_helper.to_array(i) for i in onnx.load(model).graph.initializer)
    weights = (array for array in arrays if array.dtype == np.int8 and array.ndim > 1)
    return any(int(np.abs(array.astype(np.int16)).max(initial=0)) > SAFE for array in weights)


def _largest_sum() -> onnx.ModelProto:
    """A 1x1 convolution in QDQ form, whose output is scaled so that the exact sum is 255."""
    weights_KCHW = np.full((CHANNELS, CHANNELS, 1, 1), 127, np.int8)
    shape = [1, CHANNELS, SIDE, SIDE]
    constants = [
        numpy_helper.from_array(weights_KCHW, "weights"),
        numpy_helper.from_array(np.array(1, np.float32), "one"),
        numpy_helper.from_array(np.array(CHANNELS * 127, np.float32), "scale"),
        numpy_helper.from_array(np.array(0, np.uint8), "zero_u8"),
        numpy_helper.from_array(np.array(0, np.int8), "zero_s8"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["image", "one", "zero_u8"], ["x"]),
        helper.make_node("DequantizeLinear", ["weights", "one", "zero_s8"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "scale", "zero_u8"], ["sums"]),
    ]
    graph = helper.make_graph(
        nodes,
        "largest_sum",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("sums", TensorProto.UINT8, shape)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
