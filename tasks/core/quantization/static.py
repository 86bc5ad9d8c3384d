"""Quantized graphs from a float graph, in QDQ form.

Nagel et al. 2021, "A White Paper on Neural Network Quantization", arXiv:2106.08295.

A float graph is calibrated once, and quantized from that in as many ways as are asked for.
x_N: examples as a data set has them; x: what a network takes; K: classes.
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
from onnx import TensorProto
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
from tasks.core.data.inputs import ImageInput, Input
from tasks.core.data.texts import LEAST_TOKENS
from tasks.core.runtime.graphs import INPUT, network_input, side_of
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
PLACES = "it computes with the places of words, which are not rounded"
DEPTHWISE = "depthwise: int8 gains little and loses most"


@dataclass(frozen=True)
class Calibrated:
    """A float graph from x_NCHW to logits, with the range of each of its tensors on real images.

    Attributes:
        given: the input; images are uint8 with a zero point and a scale before they are normalised.
        weight_bits: 7 where products of uint8 and int8 must not overflow 16 bits (x86 without VNNI), or 8.
        per_channel: one scale a channel of the weights, not one a tensor.
    """

    model: onnx.ModelProto
    ranges: TensorsData
    given: Input
    weight_bits: int
    per_channel: bool

    def x(self, x_N: Any) -> NDArray[Any]:
        """What the graph takes for these examples."""
        return _graph_input(self.model, x_N, self.given)


def _graph_input(model: onnx.ModelProto, x_N: Any, given: Input) -> NDArray[Any]:
    side = side_of(model, given.shape) if isinstance(given, ImageInput) else 1
    return network_input(x_N, given, side)


def batches(x: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Parts of it, small enough for a whole graph of tensors to stay in memory; texts by length, each part as long as its
    longest: means and ranges are of texts, not of what is behind them."""
    if x.dtype != np.int64:
        yield from (x[i : i + CALIBRATION_BATCH] for i in range(0, len(x), CALIBRATION_BATCH))
        return
    lengths_N = np.where(x != 0, np.arange(1, x.shape[1] + 1), 0).max(1, initial=0)
    order = np.argsort(lengths_N, kind="stable")
    for i in range(0, len(x), CALIBRATION_BATCH):
        rows = order[i : i + CALIBRATION_BATCH]
        yield x[rows, : max(LEAST_TOKENS, lengths_N[rows[-1]])]


class _Examples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x: NDArray[Any]) -> None:
        self._batches = batches(x)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def calibrate(
    model: onnx.ModelProto,
    x_N: Any,
    given: Input,
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
    x = _graph_input(model, x_N, given)
    with tempfile.TemporaryDirectory() as folder:
        plain, augmented = f"{folder}/plain.onnx", f"{folder}/augmented.onnx"
        onnx.save(model, plain)
        calibrator = create_calibrator(
            plain, OPERATORS, augmented_model_path=augmented, calibrate_method=CALIBRATORS[method]
        )
        calibrator.collect_data(_Examples(x))
        ranges = calibrator.compute_data()
    for name, data in ranges.items():
        if not np.isfinite(data.range_value).all():
            raise StageFailed(f"calibration: tensor {name} is not finite: the network's weights are broken")
    return Calibrated(model, ranges, given, weight_bits, per_channel)


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
    scales = dict(overrides or {})
    if isinstance(calibrated.given, ImageInput):
        scales = {INPUT: (calibrated.given.scale, calibrated.given.zero), **scales}
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
        {"TensorQuantOverrides": {name: [_parameters(*pair)] for name, pair in scales.items()}},
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


def layer_losses(calibrated: Calibrated, x_N: Any) -> dict[str, float]:
    """What each node with weights costs when it alone is quantized, the costliest first.

    The cost is the mean Kullback-Leibler divergence from the float graph's probabilities, in nats, over
    `x_N`.
    """
    x = calibrated.x(x_N)
    wanted_NK = _log_probabilities(calibrated.model, x)
    nodes = [node.name for node in calibrated.model.graph.node if node.op_type in WEIGHTED]
    losses = {}
    for node in nodes:
        got_NK = _log_probabilities(quantize_static(calibrated, only=[node]), x)
        losses[node] = float((np.exp(wanted_NK) * (wanted_NK - got_NK)).sum(1).mean())
    return dict(sorted(losses.items(), key=lambda item: (-item[1], item[0])))


def _log_probabilities(model: onnx.ModelProto, x: NDArray[Any]) -> NDArray[np.float64]:
    run = session(model.SerializeToString(), 1)
    logits_NK = np.concatenate([run.run(None, batch)[0] for batch in _Examples(x)])
    return np.asarray(log_softmax(logits_NK.astype(np.float64), axis=1))


def places(model: onnx.ModelProto) -> list[str]:
    """Of a network of texts the nodes that compute with where words stand, and with what they make of each other: they have
    no weights, and rounding is all that int8 would add."""
    if model.graph.input[0].type.tensor_type.elem_type != TensorProto.INT64:
        return []
    reached, names = {INPUT}, []
    for node in model.graph.node:
        if node.op_type != "LabelEncoder" and not reached.isdisjoint(node.input):
            names.append(node.name)
            reached.update(node.output if node.op_type not in WEIGHTED else ())
    return [name for name in names if name != classifier(model)]


def exact(model: onnx.ModelProto) -> dict[str, str]:
    """What int8 always leaves as it is, and why."""
    return {**dict.fromkeys(places(model), PLACES), classifier(model): CLASSIFIER}


def sensitive(model: onnx.ModelProto) -> dict[str, str]:
    """What loses in int8 without gaining from it."""
    return {**dict.fromkeys(depthwise(model), DEPTHWISE), **exact(model)}
