"""int8 graphs in QDQ form, static, from a float graph and calibration images.

Nagel et al. 2021, "A White Paper on Neural Network Quantization", arXiv:2106.08295.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from tasks.core.export import INPUT

CALIBRATION_BATCH = 32
CALIBRATORS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
# What gains from int8, and what only passes int8 on between them.
OPERATORS = ["Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool"]
WEIGHTED = ("Conv", "Gemm", "MatMul")


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images_NHWC: NDArray[np.uint8], zero: int, scale: float) -> None:
        self._batches: Iterator[NDArray[np.float32]] = (
            ((images_NHWC[i : i + CALIBRATION_BATCH].astype(np.float32) - zero) * scale).transpose(0, 3, 1, 2)
            for i in range(0, len(images_NHWC), CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: np.ascontiguousarray(batch)}


def quantize_int8(
    model: onnx.ModelProto,
    images_NHWC: NDArray[np.uint8],
    zero: int,
    scale: float,
    calibrator: str,
    per_channel: bool,
) -> onnx.ModelProto:
    """The int8 form of `model`, a graph from x_NCHW to logits.

    The input is quantized with `zero` and `scale`, which is exact: these made it from uint8. The last
    layer stays float: it is small, and logits should not be rounded. Activations are unsigned, weights
    signed with 7 bits: CPUs without VNNI add products of u8 and s8 in 16 bits, which 8-bit weights
    overflow; 7 bits cost nothing measurable and are safe everywhere.
    """
    logging.getLogger().setLevel(logging.ERROR)  # its advice goes to the root logger
    given = {"scale": np.array(scale, np.float32), "zero_point": np.array(zero, np.uint8)}
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, done = (Path(folder) / f"{name}.onnx" for name in ("plain", "prepared", "done"))
        onnx.save(model, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        last = [node.name for node in onnx.load(prepared).graph.node if node.op_type in WEIGHTED][-1]
        quantize_static(
            prepared,
            done,
            _Images(images_NHWC, zero, scale),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=OPERATORS,
            nodes_to_exclude=[last],
            per_channel=per_channel,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CALIBRATORS[calibrator],
            extra_options={"TensorQuantOverrides": {INPUT: [given]}},
        )
        return onnx.load(done)


def node_counts(model: onnx.ModelProto) -> dict[str, int]:
    """How many of the operators with weights compute in int8 and how many in fp32.

    A node is int8 when all that it reads is dequantized just before it: ONNX Runtime then fuses the
    pair around it into an integer kernel.
    """
    producer = {output: node.op_type for node in model.graph.node for output in node.output}
    weighted = [node for node in model.graph.node if node.op_type in WEIGHTED]
    int8 = sum(all(producer.get(i) == "DequantizeLinear" for i in node.input[:2]) for node in weighted)
    return {"nodes_int8": int8, "nodes_fp32": len(weighted) - int8}
