"""From a torch network to an ONNX graph that takes raw images.

The graph's input is `image`, uint8 [N, H, W, C] as a decoder gives it; normalisation is inside. Its
output is `logits`, float32 [N, K].
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from tasks.core.transforms import normalize

OPSET = 20


class Deployed(nn.Module):
    """A network with its normalisation: image_NHWC uint8 -> logits_NK."""

    def __init__(self, model: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.model, self.mean, self.std = model, mean, std

    def forward(self, image: Tensor) -> Tensor:
        logits_NK: Tensor = self.model(normalize(image, self.mean, self.std))
        return logits_NK


def export(
    model: nn.Module, image_shape: tuple[int, int, int], mean: list[float], std: list[float], path: Path
) -> None:
    """Write `model` (eval mode, CPU) to `path`; equal models give equal bytes."""
    example_NHWC = torch.zeros(2, *image_shape, dtype=torch.uint8)
    # The exporter's progress and its advice on opsets are for its own developers.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Deployed(model, mean, std).eval(),
            (example_NHWC,),
            input_names=["image"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamic_shapes={"image": {0: torch.export.Dim("N")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    strip(graph)
    path.write_bytes(graph.SerializeToString(deterministic=True))


def strip(model: onnx.ModelProto) -> None:
    """Remove what tools wrote about themselves: stack traces with paths, doc strings."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    graph.doc_string = ""
    del graph.metadata_props[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
