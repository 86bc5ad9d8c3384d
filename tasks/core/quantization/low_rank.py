"""Rows of a bag of words in as few numbers as its classes need.

V: rows of a table of words, D: numbers of a row, K: classes, R: numbers of a row that are left.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper


def shorten_rows(graph: onnx.GraphProto, gather: onnx.NodeProto, table: onnx.TensorProto) -> None:
    """Factorize, in place, a table of words whose summed rows a linear layer reads, so that its answers stay and rows hold the
    fewest numbers; any other table stays as it is.

    Between the rows and the logits there is nothing but that layer, so that both are one matrix of V rows and K columns,
    and what all columns have in common changes no answer: R is K - 1 at most. What is left are the matrix' principal axes
    (Eckart and Young 1936, doi:10.1007/BF02288367).
    """
    weight = summed_by(graph, gather.output[0])
    if weight is None:
        return
    table_VD, weight_KD = (numpy_helper.to_array(i).astype(np.float64) for i in (table, weight))
    classes, width = weight_KD.shape
    if classes > width:
        return
    matrix_VK = table_VD @ (weight_KD - weight_KD.mean(0)).T
    _, axes_KK = np.linalg.eigh(matrix_VK.T @ matrix_VK)
    axes_KR = axes_KK[:, 1:]  # in ascending order: the first is what all columns have in common
    for stored, values in ((table, matrix_VK @ axes_KR), (weight, axes_KR)):
        shorter = np.ascontiguousarray(values, np.float32)
        stored.CopyFrom(numpy_helper.from_array(shorter, stored.name))
    del graph.value_info[:]  # which says how long rows were


def summed_by(graph: onnx.GraphProto, tensor: str) -> onnx.TensorProto | None:
    """The weights [K, D] of the linear layer that reads nothing but a tensor's sum, or a share of it; None where something
    else does."""
    for operator in ("ReduceSum", "Div", "Gemm"):
        readers = [node for node in graph.node if tensor in node.input]
        if [node.op_type for node in readers] != [operator] or readers[0].input[0] != tensor:
            return None
        tensor = readers[0].output[0]
    weights = next((i for i in graph.initializer if i.name == readers[0].input[1]), None)
    return weights if weights is not None and is_transposed(readers[0]) else None


def is_transposed(node: onnx.NodeProto) -> bool:
    """Whether a Gemm has a row of weights for each of its outputs."""
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
