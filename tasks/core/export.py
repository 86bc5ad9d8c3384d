"""From a torch network to an ONNX graph that takes raw images.

The finished graph's input is `image`, uint8 [N, H, W, C] as a decoder gives it, and its output
`logits`, float32 [N, K]. A normalised image is a uint8 tensor with a zero point and a scale (see
`transforms.pixel_scale`), so that normalisation is one DequantizeLinear, and nothing at all in front of
an int8 convolution.
"""

from __future__ import annotations

import logging
import warnings

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 20
INPUT = "x_NCHW"  # of the graph before `take_raw_images`: normalised float32


def export(model: nn.Module, image_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """`model` (eval mode, CPU) as a graph from x_NCHW to logits; equal models give equal graphs."""
    height, width, channels = image_shape
    example_NCHW = torch.zeros(2, channels, height, width)
    # The exporter's progress and its advice on opsets are for its own developers.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (example_NCHW,),
            input_names=[INPUT],
            output_names=["logits"],
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("N")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def take_raw_images(
    model: onnx.ModelProto, image_shape: tuple[int, int, int], zero: int, scale: float
) -> onnx.ModelProto:
    """`model` with `image` in place of its input: transposed, and normalised where it is float.

    Where the input is quantized first, with this zero point and scale, the image takes the place of
    what was quantized.
    """
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
