"""int8 graphs in QDQ form, static, from a float graph and calibration images.

Nagel et al. 2021, "A White Paper on Neural Network Quantization", arXiv:2106.08295.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

from tasks.core.export import strip

CALIBRATION_BATCH = 32
CALIBRATORS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
# What gains from int8, and what only passes int8 on between them. Normalisation stays float.
OPERATORS = ["Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool"]


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images_NHWC: NDArray[np.uint8]) -> None:
        self._batches: Iterator[NDArray[np.uint8]] = (
            images_NHWC[i : i + CALIBRATION_BATCH] for i in range(0, len(images_NHWC), CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def quantize_int8(
    float_model: Path, images_NHWC: NDArray[np.uint8], calibrator: str, per_channel: bool, path: Path
) -> None:
    """Write the int8 form of `float_model` to `path`.

    Activations are unsigned, weights signed with 7 bits: CPUs without VNNI add products of u8 and s8
    in 16 bits, which 8-bit weights overflow; 7 bits cost nothing measurable and are safe everywhere.
    """
    logging.getLogger().setLevel(logging.ERROR)  # its advice goes to the root logger
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(float_model, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            _Images(images_NHWC),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=OPERATORS,
            per_channel=per_channel,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CALIBRATORS[calibrator],
        )
    model = onnx.load(path)
    strip(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def node_counts(model: Path) -> dict[str, Any]:
    """How many of the operators with weights compute in int8 and how many in fp32.

    A node is int8 when all that it reads is dequantized just before it: ONNX Runtime then fuses the
    pair around it into an integer kernel.
    """
    graph = onnx.load(model).graph
    producer = {output: node.op_type for node in graph.node for output in node.output}
    weighted = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    int8 = sum(all(producer.get(i) == "DequantizeLinear" for i in node.input[:2]) for node in weighted)
    return {"nodes_int8": int8, "nodes_fp32": len(weighted) - int8}
