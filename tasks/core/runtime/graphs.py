"""Graphs of networks, and the files that are made of them.

A network's graph leads from x_NCHW, normalised images, to logits. A file's input is `image`, uint8 [N, H, W, C] as a
decoder gives it, and its output `logits`, float32 [N, K]. A normalised image is a uint8 tensor with a zero point and a
scale (see `ImageInput`), so that normalisation is one DequantizeLinear, and nothing at all in front of an int8
convolution.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tasks.core.data.inputs import ImageInput, Input, TextInput
from tasks.core.data.tokens import SETS, hashing
from tasks.core.runtime.session import LONGEST, TOKENIZER
from tasks.core.runtime.stem import in_squares

OPSET = 20
INPUT = "x_NCHW"  # of the graph before `take_raw`: normalised float32; of texts tokens_NL, int64
TOKENS = "tokens"  # the input of a file that takes byte pairs
GRAPH = "graph.onnx"  # beside the weights of a network: what `export` made of it, which takes seconds


def save_graph(graph: onnx.ModelProto, folder: Path) -> None:
    """Write the graph that `export` or `refill` made of a network beside its weights."""
    (folder / GRAPH).write_bytes(to_bytes(graph))


def load_graph(folder: Path) -> onnx.ModelProto:
    """What `save_graph` wrote."""
    return onnx.load(folder / GRAPH)


def network_input(x_N: Any, given: Input, side: int = 1) -> NDArray[Any]:
    """What a network's graph takes, as a file's first nodes make it: x_NCHW of images, and `side` as `side_of` gives it; of
    texts tokens_NL."""
    if isinstance(given, TextInput):
        return np.asarray(x_N)
    x_NHWC = (in_squares(x_N, side).astype(np.float32) - given.zero) * np.float32(given.scale)
    return np.ascontiguousarray(x_NHWC.transpose(0, 3, 1, 2))


def take_raw(model: onnx.ModelProto, given: Input) -> onnx.ModelProto:
    """A copy of `model` that takes examples as they are, in place of its input; of texts as byte pairs their tokens, for which
    it carries the tokenizer."""
    if isinstance(given, ImageInput):
        return _take_images(model, given)
    if given.tokenizer is None:
        return _take_texts(model, given)
    return _take_tokens(model, given.tokenizer, given.longest)


def _take_tokens(model: onnx.ModelProto, tokenizer: str, longest: int) -> onnx.ModelProto:
    """With `tokens`, int64 [N, L], in place of its input; what makes them of texts stands in the metadata."""
    model = copy.deepcopy(model)
    for node in model.graph.node:
        for at, name in enumerate(node.input):
            if name == INPUT:
                node.input[at] = TOKENS
    next(i for i in model.graph.input if i.name == INPUT).name = TOKENS
    helper.set_model_props(model, {TOKENIZER: tokenizer, LONGEST: str(longest)})
    return model


def _take_texts(model: onnx.ModelProto, given: TextInput) -> onnx.ModelProto:
    """With `text`, strings [N], in place of its input."""
    model = copy.deepcopy(model)
    graph = model.graph
    nodes, constants = hashing("text", INPUT, given.longest)
    graph.input.remove(next(i for i in graph.input if i.name == INPUT))
    graph.input.append(helper.make_tensor_value_info("text", TensorProto.STRING, ["N"]))
    graph.initializer.extend(constants)
    nodes = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    there = {operators.domain for operators in model.opset_import}
    model.opset_import.extend(operators for operators in SETS if operators.domain not in there)
    return model


def _take_images(model: onnx.ModelProto, given: ImageInput) -> onnx.ModelProto:
    """A copy of `model` with `image` in place of its input: transposed, in squares where `model` takes it so, and normalised where it is float.

    Where the input is quantized first, with this zero point and scale, the image takes the place of
    what was quantized.
    """
    side = side_of(model, given.shape)
    model = copy.deepcopy(model)
    graph = model.graph
    readers = [node for node in graph.node if INPUT in node.input]
    graph.input.remove(next(i for i in graph.input if i.name == INPUT))
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *given.shape]))
    quantizer = readers[0] if [node.op_type for node in readers] == ["QuantizeLinear"] else None
    front = _squares(graph, given.shape, side) if side > 1 else []
    last = front[-1].output[0] if front else "image"
    front.append(helper.make_node("Transpose", [last], ["image_NCHW"], "image_transpose", perm=[0, 3, 1, 2]))
    if quantizer is None:
        graph.initializer.append(numpy_helper.from_array(np.array(given.scale, np.float32), "image_scale"))
        graph.initializer.append(numpy_helper.from_array(np.array(given.zero, np.uint8), "image_zero"))
        inputs = ["image_NCHW", "image_scale", "image_zero"]
        front.append(helper.make_node("DequantizeLinear", inputs, [INPUT], "image_normalize"))
    else:
        front[-1].output[0] = quantizer.output[0]
        graph.node.remove(quantizer)
    nodes = [*front, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def side_of(model: onnx.ModelProto, image_shape: tuple[int, ...]) -> int:
    """The side of the squares of pixels that `model` takes as one, see `stem.fold_stem`; 1: it takes images as they
    are."""
    return int(image_shape[0] // model.graph.input[0].type.tensor_type.shape.dim[2].dim_value)


def _squares(graph: onnx.GraphProto, image_shape: tuple[int, int, int], side: int) -> list[onnx.NodeProto]:
    """Nodes that do to `image` what `stem.in_squares` does; Split and Concat move whole rows, in half of Transpose's
    time."""
    height, width, channels = image_shape
    cut = [-1, height // side, side, width // side, side * channels]
    deep = [-1, height // side, width // side, side * side * channels]
    for name, shape in (("image_cut", cut), ("image_squares", deep)):
        graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), f"{name}_shape"))
    rows = [f"image_row_{row}" for row in range(side)]
    return [
        helper.make_node("Reshape", ["image", "image_cut_shape"], ["image_cut"], "image_cut"),
        helper.make_node("Split", ["image_cut"], rows, "image_rows", axis=2, num_outputs=side),
        helper.make_node("Concat", rows, ["image_joined"], "image_joined", axis=4),
        helper.make_node(
            "Reshape", ["image_joined", "image_squares_shape"], ["image_squares"], "image_squares"
        ),
    ]


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
    kept = {prop.key: prop.value for prop in model.metadata_props if prop.key in (TOKENIZER, LONGEST)}
    helper.set_model_props(model, kept)
    model.doc_string = ""
    graph = model.graph
    graph.doc_string = ""
    del graph.metadata_props[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    return bytes(model.SerializeToString(deterministic=True))
