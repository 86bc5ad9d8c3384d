"""Bias correction: rounding shifts the mean of what a layer puts out, and its bias can take the shift back.

Nagel et al. 2019, arXiv:1906.04721, section 4.2, with means that are measured. On a layer with few weights a channel,
as depthwise convolutions have, errors do not cancel, and the shift is large.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tasks.core.quantization.static import Calibrated, batches
from tasks.core.runtime.graphs import INPUT
from tasks.core.runtime.session import session
from tasks.core.runtime.weights import WEIGHTED


def correct_biases(quantized: onnx.ModelProto, calibrated: Calibrated, x_N: Any) -> onnx.ModelProto:
    """A copy of `quantized` whose int8 layers put out, channel by channel, the mean that they have in floating point.

    One layer after another, in the order in which they compute, so that each makes up for what is left of those
    before it.

    Args:
        quantized: what `quantize_static` made of `calibrated`.
        x_N: on which the means are taken.
    """
    model = copy.deepcopy(quantized)
    x = calibrated.x(x_N)
    outputs = {n.name: n.output[0] for n in calibrated.model.graph.node if n.op_type in WEIGHTED}
    wanted = dict(zip(outputs, means(calibrated.model, list(outputs.values()), x), strict=True))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.op_type not in WEIGHTED or len(node.input) < 3 or node.input[2] not in producers:
            continue
        bias, scale = (constants[name] for name in producers[node.input[2]].input[:2])
        (found_C,) = means(model, [node.output[0]], x)
        shift_C = wanted[node.name] - found_C
        steps_C = np.rint(shift_C / numpy_helper.to_array(scale)).astype(np.int64)
        limit = np.iinfo(np.int32).max
        moved_C = np.clip(numpy_helper.to_array(bias) + steps_C, -limit, limit).astype(np.int32)
        bias.CopyFrom(numpy_helper.from_array(moved_C, bias.name))
    return model


def means(model: onnx.ModelProto, tensors: Sequence[str], x: NDArray[Any]) -> list[NDArray[np.float64]]:
    """Of each channel of these tensors, over images and pixels."""
    part = copy.deepcopy(model)
    del part.graph.output[:]  # what comes after the tensors is then not computed
    part.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    run = session(part.SerializeToString(), 1)
    sums: list[NDArray[np.float64]] = [np.zeros(())] * len(tensors)
    counts = [0] * len(tensors)
    for batch in batches(x):
        for i, y in enumerate(run.run(list(tensors), {INPUT: batch})):
            axes = tuple(axis for axis in range(y.ndim) if axis != 1)  # all but the channels'
            sums[i] = sums[i] + y.sum(axes, dtype=np.float64)
            counts[i] += y.size // y.shape[1]
    return [total_C / count for total_C, count in zip(sums, counts, strict=True)]
