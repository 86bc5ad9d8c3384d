"""Which nodes of a graph compute in integers: read off what ONNX Runtime makes of the file, not hoped for."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime
from onnx import TensorProto

from tasks.core.quantization.static import OPERATORS
from tasks.core.runtime.weights import WEIGHTED

# Its integer operators begin so; what it fused it names NODE_token_N, and the dynamic ones NODE_quant.
_INTEGER = re.compile(r"QLinear|QGemm|ConvInteger|MatMulInteger|DynamicQuantizeMatMul")
_SUFFIX = re.compile(r"(_quant|_token_\d+|_scales_mul)+$")
TABLE = "Gather"  # what looks up the rows of words
# What moves numbers and computes none, or is part of a neighbour.
_PASSIVE = (
    "Flatten",
    "Reshape",
    "Transpose",
    "AveragePool",
    "GlobalAveragePool",
    "MaxPool",
    "Relu",
    "Clip",
    "Identity",
    "Unsqueeze",
    "Concat",
    "ReduceMax",
    "ReduceSum",
    "Div",
)


def node_report(
    graph: onnx.ModelProto, content: bytes, scheme: str, reasons: Mapping[str, str]
) -> list[dict[str, str]]:
    """The nodes of the float `graph` that compute, with the precision that they have in `content`.

    Args:
        content: the file that a scheme made of the graph.
        scheme: its name.
        reasons: why the scheme kept a node in floating point.

    Returns:
        For each node its name, operator, precision ("int8" or "fp32") and, for fp32, the reason.
    """
    integer = _integer_nodes(content)
    types = {value.name: value.type.tensor_type.elem_type for value in graph.graph.value_info}
    rows = []
    for node in graph.graph.node:
        if node.op_type in _PASSIVE or types.get(node.output[0], TensorProto.FLOAT) != TensorProto.FLOAT:
            continue
        int8 = node.name in integer
        if int8:
            reason = ""
        elif node.name in reasons:
            reason = reasons[node.name]
        elif not integer:
            reason = f"{scheme} computes in floating point"
        elif node.op_type in OPERATORS:
            reason = "ONNX Runtime kept it in floating point: a neighbour is"
        else:
            reason = f"ONNX Runtime has no int8 kernel for {node.op_type}"
        precision = "int8" if int8 else "fp32"
        rows.append({"name": node.name, "op": node.op_type, "precision": precision, "reason": reason})
    return rows


def count_weighted(rows: list[dict[str, str]]) -> dict[str, int]:
    """How many of the nodes with weights compute in int8 and how many in fp32; of a table of words, hold its rows so."""
    precisions = [row["precision"] for row in rows if row["op"] in (*WEIGHTED, TABLE)]
    return {f"nodes_{precision}": precisions.count(precision) for precision in ("int8", "fp32")}


def _integer_nodes(content: bytes) -> set[str]:
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(optimized)
        options.log_severity_level = 3  # it warns that such a file is for this machine alone
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(optimized).graph
    eight_bits = (TensorProto.INT8, TensorProto.UINT8)
    int8 = {tensor.name for tensor in graph.initializer if tensor.data_type in eight_bits}
    return {
        _SUFFIX.sub("", node.name)
        for node in graph.node
        if _INTEGER.match(node.op_type) or (node.op_type == TABLE and node.input[0] in int8)
    }
