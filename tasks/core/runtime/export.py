"""From a torch network to its ONNX graph, from x_NCHW to logits, and whether both compute the same."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.fx.experimental.optimization import fuse

from tasks.core.common.errors import StageFailed
from tasks.core.data.dataset import Dataset
from tasks.core.data.inputs import Input, TextInput
from tasks.core.data.texts import LEAST_TOKENS
from tasks.core.models.saved import mac_count, parameter_count, removed_blocks
from tasks.core.runtime.branches import bypass, drop_unused
from tasks.core.runtime.graphs import INPUT, OPSET, network_input, take_raw, to_bytes
from tasks.core.runtime.session import predict, session
from tasks.core.runtime.weights import WEIGHTED

PARITY_BATCHES = (1, 64)
# Of the largest logit, or of 1 if that is smaller. Float32 sums in another order differ by about 1e-5 of it; in a deep
# network whose batch norms have hardly any variance, and are folded, by about 1e-4.
PARITY_TOLERANCE = 1e-3


def export(model: nn.Module, given: Input) -> onnx.ModelProto:
    """`model` (eval mode, CPU) as a graph from x_NCHW to logits, batch norm folded into convolutions.

    Equal models give equal graphs.

    Raises:
        StageFailed: the network does something that cannot be traced or has no ONNX operator.
    """
    # The exporter's progress and its advice on opsets are for its own developers.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    folded = _folded(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                folded,
                (torch.from_numpy(given.example(2)),),
                input_names=[INPUT],
                output_names=["logits"],
                opset_version=OPSET,
                dynamic_shapes=(_dynamic(given),),
                custom_translation_table=TRANSLATIONS,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise StageFailed(f"{type(model).__name__}: cannot be exported to ONNX: {_cause(error)}") from None
    assert program is not None
    return _filled(_tidy(program.model_proto), folded)


def _lookup(keys_V: Any, keys_NG: Any) -> Any:
    """What stands for a lookup until `_tidy` makes a LabelEncoder of it, whose keys are attributes."""
    from onnxscript import opset20  # half a second, which refilling a graph need not wait for

    return opset20.Gather(keys_V, keys_NG)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {torch.ops.modelpress.lookup.default: _lookup}
KEYS = ".keys"  # how the name of a lookup ends: that of its table, and so


def _dynamic(given: Input) -> dict[int, Any]:
    """The axes of the input that may have any length."""
    texts = {1: torch.export.Dim("L", min=LEAST_TOKENS)} if isinstance(given, TextInput) else {}
    return {0: torch.export.Dim("N"), **texts}


def refill(graph: onnx.ModelProto, model: nn.Module) -> onnx.ModelProto:
    """`graph`, which `export` made of a network, with the blocks, widths and numbers of `model`, a pruned form
    of it.

    Computes what exporting `model` gives, in milliseconds instead of seconds.
    """
    smaller = copy.deepcopy(graph)
    bypass(smaller.graph, removed_blocks(model))
    return _filled(smaller, _folded(model))


def figures(model: nn.Module, graph: onnx.ModelProto, dataset: Dataset) -> dict[str, Any]:
    """What is written of a network beside its graph: `parameters`, `macs` an image, and `graph_difference`, the largest
    of a logit between torch and ONNX Runtime on validation images.

    Raises:
        StageFailed: the graph does not compute what the network does.
    """
    return {
        "parameters": parameter_count(model),
        "macs": mac_count(model, dataset.input),
        "graph_difference": _difference(model, graph, dataset),
    }


def _difference(model: nn.Module, graph: onnx.ModelProto, dataset: Dataset) -> float:
    run = session(to_bytes(take_raw(graph, dataset.input)), 1)
    worst = 0.0
    for batch in PARITY_BATCHES:
        some = dataset.val.taken(slice(batch))
        with torch.inference_mode():
            wanted = model.eval()(torch.from_numpy(network_input(some.x_N, dataset.input))).numpy()
        got = predict(run, some.raw_N)
        worst = max(worst, float(np.abs(wanted - got).max()))
        tolerance = PARITY_TOLERANCE * max(1.0, float(np.abs(wanted).max()))
        # What ONNX Runtime takes for the class may come second in torch only by a difference that is tolerated.
        chosen_N = np.take_along_axis(wanted, got.argmax(1)[:, None], 1)[:, 0]
        if worst > tolerance or (wanted.max(1) - chosen_N > 2 * tolerance).any():
            raise StageFailed(f"the ONNX graph differs from the network by {worst:.2g} at batch {batch}")
    return worst


def _folded(model: nn.Module) -> nn.Module:
    """A copy with each batch norm folded into the convolution before it (arXiv:1712.05877, section 3.2)."""
    try:
        return fuse(model)
    except torch.fx.proxy.TraceError as error:
        raise StageFailed(f"{type(model).__name__}: cannot be traced: {_cause(error)}") from None


def _cause(error: BaseException) -> str:
    """The first line of what was wrong in the first place."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0]


def _tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Means over all pixels as the operator that says so, which has an int8 kernel; what makes rows of pixels as Flatten,
    and what cuts heads apart and joins them as a Reshape to what is left, which hold no width; and what finds the rows of
    words as LabelEncoder."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {
        i.name: numpy_helper.to_array(i) for i in graph.initializer if i.data_type == TensorProto.INT64
    }
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        given, gives = node.input[0], node.output[0]
        values = constants.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type == "ReduceMean" and values is not None and sorted(values % 4) == [2, 3]:
            keep = all(a.i for a in node.attribute if a.name == "keepdims")
            mean = gives if keep else f"{gives}_NC11"
            nodes.append(helper.make_node("GlobalAveragePool", [given], [mean], node.name))
            if not keep:
                nodes.append(helper.make_node("Flatten", [mean], [gives], f"{node.name}_flatten"))
        elif node.op_type == "Gather" and given.endswith(KEYS):
            nodes.append(
                helper.make_node("LabelEncoder", [node.input[1]], [gives], given, domain="ai.onnx.ml")
            )
        elif node.op_type == "Reshape" and values is not None and len(values) == 2:
            nodes.append(helper.make_node("Flatten", [given], [gives], node.name))
        elif node.op_type == "Reshape" and values is None and makers[node.input[1]].op_type == "Concat":
            _, _, _, *rest = makers[node.input[1]].input  # texts, tokens, and what is left for each
            shape = np.array([0, 0, -1, *(int(constants[name][0]) for name in rest)])
            graph.initializer.append(numpy_helper.from_array(shape, f"{node.name}_shape"))
            nodes.append(helper.make_node("Reshape", [given, f"{node.name}_shape"], [gives], node.name))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(graph)
    if any(node.domain == "ai.onnx.ml" for node in nodes):
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 4))
    return model


def _rows_of(keys: list[int]) -> list[onnx.AttributeProto]:
    """Of a LabelEncoder that gives 1 + where a key is in these, and 0 where it is not. As tensors of numbers, not of bytes:
    these take as many bytes as they have digits, five a key, and lists one more for each number."""
    given = {"keys_tensor": keys, "values_tensor": list(range(1, len(keys) + 1))}
    tensors = {
        name: helper.make_tensor(name, TensorProto.INT64, [len(keys)], numbers)
        for name, numbers in given.items()
    }
    return [helper.make_attribute(name, value) for name, value in {**tensors, "default_int64": 0}.items()]


def _filled(model: onnx.ModelProto, folded: nn.Module) -> onnx.ModelProto:
    """`model` with the weights of `folded`: its layers have the names of the graph's initializers."""
    graph, state = model.graph, folded.state_dict()
    for node in graph.node:
        if node.op_type == "LabelEncoder":
            del node.attribute[:]
            node.attribute.extend(_rows_of(state[node.name].tolist()))
        layer, _, kind = node.input[1].rpartition(".") if node.op_type in WEIGHTED else ("", "", "")
        if kind != "weight" or f"{layer}.weight" not in state:
            continue
        bias = f"{layer}.bias"
        node.input[:] = [*node.input[:2], *([bias] if bias in state else [])]
        for attribute in node.attribute:
            if attribute.name == "group":
                attribute.i = int(folded.get_submodule(layer).groups)  # type: ignore[arg-type]
    used = {name for node in graph.node for name in node.input}
    kept = [i for i in graph.initializer if i.name in used and i.name not in state]
    kept += [
        numpy_helper.from_array(np.ascontiguousarray(tensor.detach().numpy()), name)
        for name, tensor in state.items()
        if name in used
    ]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model)
