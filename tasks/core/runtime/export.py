"""From a torch network to an ONNX graph that takes raw images.

The finished graph's input is `image`, uint8 [N, H, W, C] as a decoder gives it, and its output
`logits`, float32 [N, K]. A normalised image is a uint8 tensor with a zero point and a scale (see
`transforms.pixel_scale`), so that normalisation is one DequantizeLinear, and nothing at all in front of
an int8 convolution.
"""

from __future__ import annotations

import copy
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.fx.experimental.optimization import fuse

from tasks.core.common.errors import StageFailed
from tasks.core.models.saved import removed_blocks
from tasks.core.runtime.branches import bypass
from tasks.core.runtime.weights import WEIGHTED

OPSET = 20
INPUT = "x_NCHW"  # of the graph before `take_raw_images`: normalised float32
GRAPH = "graph.onnx"  # beside the weights of a network: what `export` made of it, which takes seconds


def export(model: nn.Module, image_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """`model` (eval mode, CPU) as a graph from x_NCHW to logits, batch norm folded into convolutions.

    Equal models give equal graphs.

    Raises:
        StageFailed: the network does something that cannot be traced or has no ONNX operator.
    """
    height, width, channels = image_shape
    example_NCHW = torch.zeros(2, channels, height, width)
    # The exporter's progress and its advice on opsets are for its own developers.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    folded = _folded(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                folded,
                (example_NCHW,),
                input_names=[INPUT],
                output_names=["logits"],
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise StageFailed(f"{type(model).__name__}: cannot be exported to ONNX: {_cause(error)}") from None
    assert program is not None
    return _filled(_tidy(program.model_proto), folded)


def refill(graph: onnx.ModelProto, model: nn.Module) -> onnx.ModelProto:
    """`graph`, which `export` made of a network, with the blocks, widths and numbers of `model`, a pruned form
    of it.

    Computes what exporting `model` gives, in milliseconds instead of seconds.
    """
    smaller = copy.deepcopy(graph)
    bypass(smaller.graph, removed_blocks(model))
    return _filled(smaller, _folded(model))


def save_graph(graph: onnx.ModelProto, folder: Path) -> None:
    """Write what `export` or `refill` made of a network beside its weights."""
    (folder / GRAPH).write_bytes(to_bytes(graph))


def load_graph(folder: Path) -> onnx.ModelProto:
    """What `save_graph` wrote."""
    return onnx.load(folder / GRAPH)


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
    """Means over all pixels as the operator that says so, which has an int8 kernel, and what makes rows of
    pixels as Flatten, which holds no width."""
    graph = model.graph
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
        elif node.op_type == "Reshape" and values is not None and len(values) == 2:
            nodes.append(helper.make_node("Flatten", [given], [gives], node.name))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _filled(model: onnx.ModelProto, folded: nn.Module) -> onnx.ModelProto:
    """`model` with the weights of `folded`: its layers have the names of the graph's initializers."""
    graph, state = model.graph, folded.state_dict()
    for node in graph.node:
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


def take_raw_images(
    model: onnx.ModelProto, image_shape: tuple[int, int, int], zero: int, scale: float
) -> onnx.ModelProto:
    """A copy of `model` with `image` in place of its input: transposed, and normalised where it is float.

    Where the input is quantized first, with this zero point and scale, the image takes the place of
    what was quantized.
    """
    model = copy.deepcopy(model)
    graph = model.graph
    readers = [node for node in graph.node if INPUT in node.input]
    graph.input.remove(next(i for i in graph.input if i.name == INPUT))
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *image_shape]))
    quantizer = readers[0] if [node.op_type for node in readers] == ["QuantizeLinear"] else None
    front = [helper.make_node("Transpose", ["image"], ["image_NCHW"], "image_transpose", perm=[0, 3, 1, 2])]
    if quantizer is None:
        graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), "image_scale"))
        graph.initializer.append(numpy_helper.from_array(np.array(zero, np.uint8), "image_zero"))
        inputs = ["image_NCHW", "image_scale", "image_zero"]
        front.append(helper.make_node("DequantizeLinear", inputs, [INPUT], "image_normalize"))
    else:
        front[0].output[0] = quantizer.output[0]
        graph.node.remove(quantizer)
    nodes = [*front, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def divide_logits(model: onnx.ModelProto, by: float) -> onnx.ModelProto:
    """A copy of `model` whose logits are divided: in the last node where that is a Gemm, which costs nothing; behind
    it otherwise."""
    model = copy.deepcopy(model)
    last = next(node for node in model.graph.node if "logits" in node.output)
    if last.op_type == "Gemm":
        factors = {"alpha": 1.0, "beta": 1.0} | {
            a.name: a.f for a in last.attribute if a.name in ("alpha", "beta")
        }
        kept = [a for a in last.attribute if a.name not in factors]
        del last.attribute[:]
        last.attribute.extend(kept)
        last.attribute.extend(helper.make_attribute(name, factor / by) for name, factor in factors.items())
    else:
        last.output[list(last.output).index("logits")] = "logits_undivided"
        factor = numpy_helper.from_array(np.array(1 / by, np.float32), "logits_factor")
        model.graph.initializer.append(factor)
        model.graph.node.append(
            helper.make_node("Mul", ["logits_undivided", factor.name], ["logits"], "logits_divide")
        )
    return model


def to_bytes(model: onnx.ModelProto) -> bytes:
    """The file's content, without what tools wrote about themselves: stack traces with paths, doc
    strings."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    graph.doc_string = ""
    del graph.metadata_props[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    return bytes(model.SerializeToString(deterministic=True))
