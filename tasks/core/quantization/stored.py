"""Weights in fewer bits that are computed with in float32: a smaller file, and no other speed.

V: rows of a table of words, D: numbers of a row.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tasks.core.common.errors import StageFailed
from tasks.core.quantization.low_rank import is_transposed, shorten_rows, summed_by
from tasks.core.runtime.weights import WEIGHTED

SMALLEST = 64  # weights of fewer numbers are not worth a scale


def quantize_weights(model: onnx.ModelProto, only: Collection[str] | None = None) -> onnx.ModelProto:
    """Weight-only: int8 weights, one scale a channel, that ONNX Runtime turns into float32 when it loads
    the file. A quarter of the size; the speed of float32.

    By Cast and Mul: a DequantizeLinear of weights is kept for each run, at several times the cost. Of a table of words the
    rows that were looked up are what is turned into float32, at each run: never the table.

    Args:
        only: where given, the nodes whose weights are stored so; tables are anyhow.
    """
    model, graph = _copied(model)
    for node, table in _tables(graph):
        shorten_rows(graph, node, table)
        _store_rows(graph, node, table)
    for node, weight in _weights(model):
        if only is not None and node.name not in only:
            continue
        values = numpy_helper.to_array(weight)
        axis = 0 if node.op_type == "Conv" or is_transposed(node) else values.ndim - 1
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
    for node, table in _tables(graph):
        shorten_rows(graph, node, table)
        stored = numpy_helper.from_array(
            numpy_helper.to_array(table).astype(np.float16), f"{table.name}_fp16"
        )
        graph.initializer.append(stored)
        _behind(graph, node, table, stored)
    for _, weight in _weights(model):
        values = numpy_helper.to_array(weight)
        name = weight.name
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise StageFailed(f"fp16: a weight of {name} is beyond the range of float16 (65504)")
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16"))
        cast = helper.make_node("Cast", [f"{name}_fp16"], [name], f"{name}_cast", to=TensorProto.FLOAT)
        _replace(graph, weight, cast)
    return model


def _store_rows(graph: onnx.GraphProto, gather: onnx.NodeProto, table: onnx.TensorProto) -> None:
    """int8 rows of a table of words, one scale a column, in place. The scales go into the linear layer that the sum of the
    rows leads to, where it does so, and cost no time; else they are an operator of their own."""
    values_VD = numpy_helper.to_array(table)
    scale_D = (np.abs(values_VD).max(0) / 127).astype(np.float32)
    scale_D[scale_D == 0] = 1
    stored = numpy_helper.from_array(np.rint(values_VD / scale_D).astype(np.int8), f"{table.name}_int8")
    graph.initializer.append(stored)
    # By Cast: a DequantizeLinear takes eight times as long.
    cast = _behind(graph, gather, table, stored)
    weight = summed_by(graph, cast.output[0])
    if weight is not None:
        scaled = numpy_helper.to_array(weight) * scale_D
        weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(scaled, np.float32), weight.name))
        return
    out = cast.output[0]
    cast.output[0] = f"{out}_steps"
    graph.initializer.append(numpy_helper.from_array(scale_D, f"{table.name}_scale"))
    scale = helper.make_node("Mul", [f"{out}_steps", f"{table.name}_scale"], [out], f"{gather.name}_scaled")
    graph.node.insert(list(graph.node).index(cast) + 1, scale)


def _tables(graph: onnx.GraphProto) -> list[tuple[onnx.NodeProto, onnx.TensorProto]]:
    """The tables of words in float32, each with the node that looks up its rows."""
    floats = {i.name: i for i in graph.initializer if i.data_type == TensorProto.FLOAT}
    found = [(n, floats.get(n.input[0])) for n in graph.node if n.op_type == "Gather"]
    return [(n, table) for n, table in found if table is not None and len(table.dims) == 2]


def _behind(
    graph: onnx.GraphProto, gather: onnx.NodeProto, table: onnx.TensorProto, stored: onnx.TensorProto
) -> onnx.NodeProto:
    """What was looked up in `stored`, in place of `table`, becomes float32 by the operator that is returned."""
    out = gather.output[0]
    gather.input[0], gather.output[0] = stored.name, f"{out}_stored"
    graph.initializer.remove(table)
    cast = helper.make_node("Cast", [f"{out}_stored"], [out], f"{gather.name}_float", to=TensorProto.FLOAT)
    place = list(graph.node).index(gather) + 1
    graph.node.insert(place, cast)
    inserted: onnx.NodeProto = graph.node[place]
    return inserted


def _copied(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.GraphProto]:
    model = copy.deepcopy(model)
    return model, model.graph


def _weights(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, onnx.TensorProto]]:
    """The operators with weights, each with its weights, where these are large enough to matter."""
    initializers = {i.name: i for i in model.graph.initializer}
    pairs = [(n, initializers.get(n.input[1])) for n in model.graph.node if n.op_type in WEIGHTED]
    return [(n, w) for n, w in pairs if w is not None and np.prod(w.dims) >= SMALLEST]


def _replace(graph: onnx.GraphProto, weight: onnx.TensorProto, *nodes: onnx.NodeProto) -> None:
    """What `nodes` compute takes the place of an initializer."""
    graph.initializer.remove(weight)
    for node in reversed(nodes):
        graph.node.insert(0, node)
