"""Rows of words that a quantized graph needs no floating point for, though its quantizer leaves them there.

V: rows of a table of words, D: numbers of a row.
"""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import numpy_helper

_MOVES = ("Transpose", "Unsqueeze")  # that numbers change their places in, and nothing else


def rows_as_read(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a QDQ graph that computes the same, to the bit, from rows that are stored as convolutions read them."""
    model = copy.deepcopy(model)
    graph = model.graph
    stored = {i.name: i for i in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for node in list(graph.node):
        if node.op_type == "QuantizeLinear":
            _store_rows(graph, node, makers, stored)
    return model


def _store_rows(
    graph: onnx.GraphProto,
    quantizer: onnx.NodeProto,
    makers: dict[str, onnx.NodeProto],
    stored: dict[str, onnx.TensorProto],
) -> None:
    """Where nothing but this node reads what was looked up, the table holds what it makes of it."""
    moved = quantizer.input[0]
    path = []
    while moved in makers and makers[moved].op_type in _MOVES:
        path.append(makers[moved])
        moved = path[-1].input[0]
    gather = makers.get(moved)
    if gather is None or gather.op_type != "Gather" or gather.input[0] not in stored:
        return
    between = [gather, *path]
    if any(sum(node.output[0] in other.input for other in graph.node) != 1 for node in between):
        return
    table = stored[gather.input[0]]
    scale, zero = (numpy_helper.to_array(stored[name]) for name in quantizer.input[1:3])
    # As ONNX Runtime rounds: to the nearest even number.
    steps_VD = np.rint(numpy_helper.to_array(table) / scale).astype(np.int32) + zero.astype(np.int32)
    rows = numpy_helper.from_array(np.clip(steps_VD, 0, 255).astype(np.uint8), f"{table.name}_uint8")
    graph.initializer.remove(table)
    graph.initializer.append(rows)
    gather.input[0] = rows.name
    for node in between:
        node.output[0] = f"{node.output[0]}_uint8"
    for node, before in zip(reversed(path), [gather, *reversed(path)], strict=False):
        node.input[0] = before.output[0]
    (path[0] if path else gather).output[0] = quantizer.output[0]
    graph.node.remove(quantizer)
