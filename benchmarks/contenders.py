"""Models of several runtimes behind one face: raw uint8 images in, logits out, one thread.

image_NHWC: uint8 [N, H, W, C]; x_NCHW: normalised float32; logits_NK: float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from peers import INPUT

from tasks.core.common.errors import BadInput
from tasks.core.data.parts import parts
from tasks.core.runtime.session import predict, session

OPENVINO = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
# What an operator with weights is called in a graph that ONNX Runtime has optimized, or OpenVINO compiled.
ORT_FLOAT = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
ORT_INT8 = (
    *("QLinearConv", "QLinearMatMul", "QGemm"),
    *("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
)
OPENVINO_WEIGHTED = ("Convolution", "FullyConnected", "MatMul")


class Contender(Protocol):
    """A model that is loaded."""

    size_bytes: int

    def predict(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """logits_NK of all images."""

    def call(self, images_NHWC: NDArray[np.uint8]) -> Callable[[], object]:
        """What runs the model on these images, once each time it is called."""

    def int8_share(self) -> tuple[int, int]:
        """How many of its operators with weights compute in int8, and how many there are, after all that
        the runtime has fused."""


class OnnxModel:
    """A file in ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        self.path, self.run, self.size_bytes = path, session(path, 1), path.stat().st_size

    def predict(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        return predict(self.run, images_NHWC)

    def call(self, images_NHWC: NDArray[np.uint8]) -> Callable[[], object]:
        return partial(self.run.run, None, {"image": images_NHWC})

    def int8_share(self) -> tuple[int, int]:
        with tempfile.TemporaryDirectory() as folder:
            options = onnxruntime.SessionOptions()
            options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
            options.log_severity_level = 3
            onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
            graph = onnx.load(options.optimized_model_filepath).graph
        kinds = [node.op_type for node in graph.node]
        int8 = sum(kind in ORT_INT8 for kind in kinds)
        return int8, int8 + sum(kind in ORT_FLOAT for kind in kinds)


class OpenVinoModel:
    """A file in OpenVINO, compiled for the batch it gets, which is faster than for any batch."""

    def __init__(self, path: Path, zero: float, scale: float) -> None:
        """`path` begins with x_NCHW; (image - zero) * scale becomes OpenVINO's own preprocessing."""
        import openvino

        self.openvino, self.core = openvino, openvino.Core()
        self.size_bytes = path.stat().st_size + path.with_suffix(".bin").stat().st_size
        steps = openvino.preprocess.PrePostProcessor(self.core.read_model(path))
        image = steps.input()
        image.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        image.model().set_layout(openvino.Layout("NCHW"))
        image.preprocess().convert_element_type(openvino.Type.f32).mean(zero).scale(1 / scale)
        self.model = steps.build()

    def predict(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        compiled = self._compile((-1, *images_NHWC.shape[1:]))
        some = (np.ascontiguousarray(images_NHWC[rows_n]) for rows_n in parts(len(images_NHWC)))
        return np.concatenate([compiled(part)[0].copy() for part in some])

    def call(self, images_NHWC: NDArray[np.uint8]) -> Callable[[], object]:
        request = self._compile(images_NHWC.shape).create_infer_request()
        # The fastest of its ways to be called: the input is bound once, the output is not copied.
        request.set_input_tensor(self.openvino.Tensor(images_NHWC, shared_memory=True))
        return partial(request.infer, share_outputs=True)

    def int8_share(self) -> tuple[int, int]:
        _, *image_shape = self.model.input().partial_shape
        graph = self._compile((1, *image_shape)).get_runtime_model()
        about = [node.get_rt_info() for node in graph.get_ops()]
        kinds = [i["runtimePrecision"] for i in about if i["layerType"] in OPENVINO_WEIGHTED]
        return sum(kind in ("i8", "u8") for kind in kinds), len(kinds)

    def _compile(self, shape: tuple[Any, ...]) -> Any:
        self.model.reshape(list(shape))
        return self.core.compile_model(self.model, "CPU", OPENVINO)


@dataclass(frozen=True)
class Front:
    """What turns the raw image into x_NCHW: nodes, their constants, and the graph's input."""

    nodes: list[onnx.NodeProto]
    constants: list[onnx.TensorProto]
    image: onnx.ValueInfoProto

    def zero_and_scale(self) -> tuple[float, float]:
        """Of the normalisation, (image - zero) * scale."""
        values = {c.name: float(numpy_helper.to_array(c)) for c in self.constants}
        _, scale, zero = next(n.input for n in self.nodes if n.op_type == "DequantizeLinear")
        return values[zero], values[scale]


def cut_front(model: onnx.ModelProto) -> Front:
    """Take what turns the raw image into x_NCHW off `model`, which then begins there.

    Raises:
        BadInput: it has no x_NCHW.
    """
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    if INPUT not in makers:
        raise BadInput(f"the dense model has no tensor {INPUT}: it must be an fp32 one of the stage quantize")
    nodes: list[onnx.NodeProto] = []
    todo = [INPUT]
    while todo:
        if node := makers.get(todo.pop()):
            nodes.insert(0, node)
            todo += node.input
    read = {name for node in nodes for name in node.input}
    front = Front(nodes, [c for c in graph.initializer if c.name in read], graph.input[0])
    for node in front.nodes:
        graph.node.remove(node)
    for constant in front.constants:
        graph.initializer.remove(constant)
    shape_NHWC = [d.dim_param or d.dim_value for d in front.image.type.tensor_type.shape.dim]
    shape_NCHW = [shape_NHWC[i] for i in (0, 3, 1, 2)]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, shape_NCHW))
    return front


def paste_front(model: onnx.ModelProto, front: Front) -> None:
    """Put `front` before a model that begins with x_NCHW.

    Nothing is fused, unlike in `tasks.core.runtime.export.take_raw`: where the model quantizes its input, it
    may do so with another zero point and scale than the image's.
    """
    graph = model.graph
    nodes = [*front.nodes, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.extend(front.constants)
    graph.input.append(front.image)
