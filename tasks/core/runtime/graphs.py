"""Graphs of networks, and the files that are made of them.

A network's graph leads from x_NCHW, normalised images, to logits. A file's input is `image`, uint8 [N, H, W, C] as a
decoder gives it, and its output `logits`, float32 [N, K]. A normalised image is a uint8 tensor with a zero point and a
scale (see `dataset.pixel_scale`), so that normalisation is one DequantizeLinear, and nothing at all in front of an int8
convolution.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
INPUT = "x_NCHW"  # of the graph before `take_raw_images`: normalised float32
GRAPH = "graph.onnx"  # beside the weights of a network: what `export` made of it, which takes seconds


def save_graph(graph: onnx.ModelProto, folder: Path) -> None:
    """Write the graph that `export` or `refill` made of a network beside its weights."""
    (folder / GRAPH).write_bytes(to_bytes(graph))


def load_graph(folder: Path) -> onnx.ModelProto:
    """What `save_graph` wrote."""
    return onnx.load(folder / GRAPH)


def normalized(images_NHWC: NDArray[np.uint8], zero: int, scale: float) -> NDArray[np.float32]:
    """x_NCHW of images, as a file's first node makes it."""
    x_NHWC = (images_NHWC.astype(np.float32) - zero) * np.float32(scale)
    return np.ascontiguousarray(x_NHWC.transpose(0, 3, 1, 2))


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
