"""Quantized graphs from a float graph, in QDQ form.

Nagel et al. 2021, "A White Paper on Neural Network Quantization", arXiv:2106.08295.

A float graph is calibrated once, and quantized from that in as many ways as are asked for.
image_NHWC: uint8 images; x_NCHW: normalised float32; K: classes.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantType,
    create_calibrator,
    quantize_dynamic,
)
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from scipy.special import log_softmax

from tasks.core.common.errors import StageFailed
from tasks.core.runtime.graphs import INPUT, normalized, side_of
from tasks.core.runtime.session import session
from tasks.core.runtime.weights import WEIGHTED

CALIBRATION_BATCH = 32
CALIBRATORS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,  # Migacz 2017, 8-bit inference with TensorRT
    "percentile": CalibrationMethod.Percentile,
}
# What gains from int8, and what only passes int8 on between them.
OPERATORS = [*WEIGHTED, "Add", "Mul", "Relu", "Clip", "Sigmoid", "MaxPool"]
CLASSIFIER = "the classifier: logits are not rounded"
DEPTHWISE = "depthwise: int8 gains little and loses most"
SMALLEST = 64  # weights of fewer numbers are not worth a scale


@dataclass(frozen=True)
class Calibrated:
    """A float graph from x_NCHW to logits, with the range of each of its tensors on real images.

    Attributes:
        zero: zero point of the input, which is uint8 before it is normalised.
        scale: its scale.
        weight_bits: 7 where products of uint8 and int8 must not overflow 16 bits (x86 without VNNI), or 8.
        per_channel: one scale a channel of the weights, not one a tensor.
    """

    model: onnx.ModelProto
    ranges: TensorsData
    zero: int
    scale: float
    weight_bits: int
    per_channel: bool

    def x_NCHW(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the graph takes for these images."""
        side = side_of(self.model, images_NHWC.shape[1:])
        return normalized(images_NHWC, self.zero, self.scale, side)


def batches(x_NCHW: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Parts of it, small enough for a whole graph of tensors to stay in memory."""
    return (x_NCHW[i : i + CALIBRATION_BATCH] for i in range(0, len(x_NCHW), CALIBRATION_BATCH))


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x_NCHW: NDArray[np.float32]) -> None:
        self._batches = batches(x_NCHW)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def calibrate(
    model: onnx.ModelProto,
    images_NHWC: NDArray[np.uint8],
    zero: int,
    scale: float,
    *,
    method: str,
    weight_bits: int,
    per_channel: bool,
) -> Calibrated:
    """Find the range of each tensor of `model` on the calibration images.

    Args:
        method: "minmax", "entropy" or "percentile".

    Raises:
        StageFailed: a tensor is not finite.
    """
    logging.getLogger().setLevel(logging.ERROR)  # its advice goes to the root logger
    x_NCHW = normalized(images_NHWC, zero, scale, side_of(model, images_NHWC.shape[1:]))
    with tempfile.TemporaryDirectory() as folder:
        plain, augmented = f"{folder}/plain.onnx", f"{folder}/augmented.onnx"
        onnx.save(model, plain)
        calibrator = create_calibrator(
            plain, OPERATORS, augmented_model_path=augmented, calibrate_method=CALIBRATORS[method]
        )
        calibrator.collect_data(_Images(x_NCHW))
        ranges = calibrator.compute_data()
    for name, data in ranges.items():
        if not np.isfinite(data.range_value).all():
            raise StageFailed(f"calibration: tensor {name} is not finite: the network's weights are broken")
    return Calibrated(model, ranges, zero, scale, weight_bits, per_channel)


def quantize_static(
    calibrated: Calibrated,
    float_nodes: Collection[str] = (),
    only: Collection[str] = (),
    overrides: Mapping[str, tuple[float, int]] | None = None,
) -> onnx.ModelProto:
    """The int8 form of the graph.

    The input is quantized with the zero point and scale that made it from uint8, which is exact.
    Activations are unsigned, weights signed and symmetric.

    Args:
        float_nodes: nodes that stay in floating point.
        only: where given, the nodes that are quantized.
        overrides: scale and zero point of activations, in place of those that follow from their ranges.
    """
    given = {INPUT: (calibrated.scale, calibrated.zero), **(overrides or {})}
    quantizer = QDQQuantizer(
        copy.deepcopy(calibrated.model),
        calibrated.per_channel,
        calibrated.weight_bits == 7,
        QuantType.QInt8,
        QuantType.QUInt8,
        calibrated.ranges,
        list(only),
        list(float_nodes),
        OPERATORS,
        {"TensorQuantOverrides": {name: [_parameters(*pair)] for name, pair in given.items()}},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model  # type: ignore[no-any-return]


def _parameters(scale: float, zero: int) -> dict[str, Any]:
    return {"scale": np.array(scale, np.float32), "zero_point": np.array(zero, np.uint8)}


def quantize_on_the_fly(model: onnx.ModelProto) -> onnx.ModelProto:
    """Dynamic quantization: int8 weights, and activations whose range is found anew for each batch."""
    with tempfile.TemporaryDirectory() as folder:
        plain, done = Path(folder) / "plain.onnx", Path(folder) / "done.onnx"
        onnx.save(model, plain)
        quantize_dynamic(plain, done, per_channel=False, reduce_range=True, weight_type=QuantType.QUInt8)
        return onnx.load(done)


def quantize_weights(model: onnx.ModelProto, only: Collection[str] | None = None) -> onnx.ModelProto:
    """Weight-only: int8 weights, one scale a channel, that ONNX Runtime turns into float32 when it loads
    the file. A quarter of the size; the speed of float32.

    By Cast and Mul: a DequantizeLinear of weights is kept for each run, at several times the cost.

    Args:
        only: where given, the nodes whose weights are stored so.
    """
    model, graph = _copied(model)
    for node, weight in _weights(model):
        if only is not None and node.name not in only:
            continue
        values = numpy_helper.to_array(weight)
        axis = 0 if node.op_type == "Conv" or _transposed(node) else values.ndim - 1
        others = tuple(i for i in range(values.ndim) if i != axis)
        scale = (np.abs(values).max(others) / 127).astype(np.float32)
        scale[scale == 0] = 1
        shape = [-1 if i == axis else 1 for i in range(values.ndim)]
        rounded = np.rint(values / scale.reshape(shape)).astype(np.int8)
        name = weight.name
        graph.initializer.append(numpy_helper.from_array(rounded, f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scale.reshape(shape), f"{name}_scale"))
        steps = f"{name}_steps"
        cast = helper.make_node("Cast", [f"{name}_int8"], [steps], f"{name}_cast", to=TensorProto.FLOAT)
        scaled = helper.make_node("Mul", [steps, f"{name}_scale"], [name], f"{name}_scaled")
        _replace(graph, weight, cast, scaled)
    return model


def halve_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights in float16, which ONNX Runtime turns into float32 when it loads the file: it has no float16
    kernels for x86. Half of the size; the speed of float32.

    Raises:
        StageFailed: a weight is too large for float16.
    """
    model, graph = _copied(model)
    for _, weight in _weights(model):
        values = numpy_helper.to_array(weight)
        name = weight.name
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise StageFailed(f"fp16: a weight of {name} is beyond the range of float16 (65504)")
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16"))
        cast = helper.make_node("Cast", [f"{name}_fp16"], [name], f"{name}_cast", to=TensorProto.FLOAT)
        _replace(graph, weight, cast)
    return model


def _copied(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.GraphProto]:
    model = copy.deepcopy(model)
    return model, model.graph


def _weights(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, onnx.TensorProto]]:
    """The operators with weights, each with its weights, where these are large enough to matter."""
    initializers = {i.name: i for i in model.graph.initializer}
    pairs = [(n, initializers.get(n.input[1])) for n in model.graph.node if n.op_type in WEIGHTED]
    return [(n, w) for n, w in pairs if w is not None and np.prod(w.dims) >= SMALLEST]


def _transposed(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def _replace(graph: onnx.GraphProto, weight: onnx.TensorProto, *nodes: onnx.NodeProto) -> None:
    """What `nodes` compute takes the place of an initializer."""
    graph.initializer.remove(weight)
    for node in reversed(nodes):
        graph.node.insert(0, node)


def classifier(model: onnx.ModelProto) -> str:
    """The last node with weights. It stays float: it is small, and logits should not be rounded."""
    return str([node.name for node in model.graph.node if node.op_type in WEIGHTED][-1])


def depthwise(model: onnx.ModelProto) -> list[str]:
    """The convolutions with one filter a channel: ONNX Runtime's int8 kernels are slower for them, and
    their few weights a channel lose most."""
    shapes = {i.name: i.dims for i in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and shapes[node.input[1]][1] == 1 and shapes[node.input[1]][0] > 1
        and any(a.name == "group" and a.i > 1 for a in node.attribute)
    ]  # fmt: skip


def layer_losses(calibrated: Calibrated, images_NHWC: NDArray[np.uint8]) -> dict[str, float]:
    """What each node with weights costs when it alone is quantized, the costliest first.

    The cost is the mean Kullback-Leibler divergence from the float graph's probabilities, in nats, over
    `images_NHWC`.
    """
    x_NCHW = calibrated.x_NCHW(images_NHWC)
    wanted_NK = _log_probabilities(calibrated.model, x_NCHW)
    nodes = [node.name for node in calibrated.model.graph.node if node.op_type in WEIGHTED]
    losses = {}
    for node in nodes:
        got_NK = _log_probabilities(quantize_static(calibrated, only=[node]), x_NCHW)
        losses[node] = float((np.exp(wanted_NK) * (wanted_NK - got_NK)).sum(1).mean())
    return dict(sorted(losses.items(), key=lambda item: (-item[1], item[0])))


def _log_probabilities(model: onnx.ModelProto, x_NCHW: NDArray[np.float32]) -> NDArray[np.float64]:
    run = session(model.SerializeToString(), 1)
    logits_NK = np.concatenate([run.run(None, batch)[0] for batch in _Images(x_NCHW)])
    return np.asarray(log_softmax(logits_NK.astype(np.float64), axis=1))


def sensitive(model: onnx.ModelProto) -> dict[str, str]:
    """What loses in int8 without gaining from it."""
    kept = dict.fromkeys(depthwise(model), DEPTHWISE)
    return {**kept, classifier(model): CLASSIFIER}
