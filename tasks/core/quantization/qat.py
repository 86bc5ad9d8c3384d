"""Quantization-aware training: a QDQ graph learns to be one.

Jacob et al. 2017, arXiv:1712.05877; the scales of activations are learned as in LSQ, Esser et al. 2020,
arXiv:1902.08153. The network that trains is the int8 graph itself, operator by operator, with rounding
that lets gradients through; so what was trained is what ONNX Runtime computes, and nothing has to be
matched between two descriptions of the network.

logits_NK: float32, K classes.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from tasks.core.augmentation.augment import augment_of
from tasks.core.common.errors import StageFailed
from tasks.core.common.progress import Progress
from tasks.core.data.inputs import ImageInput
from tasks.core.distributed.world import world
from tasks.core.models.saved import load_model
from tasks.core.quantization.operators import OPERATORS
from tasks.core.quantization.source import Made, TrainableSource
from tasks.core.quantization.static import Calibrated, quantize_static, sensitive
from tasks.core.runtime.graphs import INPUT
from tasks.core.training.loop import Teacher, epochs
from tasks.core.training.optimizer import Recipe
from tasks.core.training.recipes import note

QMAX = 255  # activations are uint8
STRETCH = 2.0  # a learned scale is at most so many times the calibrated one, and at least its inverse


def learn(source: TrainableSource) -> Made:
    """int8, trained to be: the network in floating point teaches the graph, on images for training.

    Where that made it worse, what stood before the training is given back, with a warning.
    """
    params = source.params
    network, spec = load_model(source.model)
    train = dataclasses.replace(source.dataset.train, sampling=spec.sampling)
    reasons = sensitive(source.graph)
    untrained = Made.in_int8(quantize_static(source.calibrated, reasons), reasons)
    student = IntegerGraph(source.calibrated, reasons)
    recipe = Recipe(
        epochs=params.qat_epochs,
        batch_size=params.qat_batch_size,
        lr=params.qat_lr,
        weight_decay=0.0,
        warmup_epochs=0.1,
        seed=params.seed,
    )
    with world() as ranks, Progress("quantize", params.qat_epochs) as progress:
        rows = epochs(
            student,
            recipe,
            train,
            source.dataset.val,
            augment_of(source.policy, params.qat_augment_strength),
            len(source.dataset.classes),
            ranks,
            teacher=Teacher(network.to(ranks.device), temperature=2.0, weight=0.9),
        )
        progress.over(rows, note)
    learned = Made.in_int8(trained(student.cpu(), source.calibrated, reasons), reasons)
    before, after = (source.accuracy(source.file(made.graph)) for made in (untrained, learned))
    if after < before:
        warning = f"training in int8 led from {before:.2%} to {after:.2%} on the validation examples"
        return dataclasses.replace(
            untrained, warning=f"{warning}: what stood before it was kept; lower quantize.qat_lr"
        )
    return learned


@dataclasses.dataclass(frozen=True)
class _Step:
    """One operator: what it reads, what it writes and its attributes."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


class IntegerGraph(nn.Module):
    """A graph of `quantize_static` as a network that computes the same and can be trained.

    Args:
        calibrated: the float graph that it is made of, whose weights are trained.
        float_nodes: as in `quantize_static`.

    Raises:
        StageFailed: the graph has an operator that cannot be trained here.
    """

    def __init__(self, calibrated: Calibrated, float_nodes: Collection[str]) -> None:
        super().__init__()
        graph = quantize_static(calibrated, float_nodes).graph
        stored = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        floats = {i.name: numpy_helper.to_array(i) for i in calibrated.model.graph.initializer}
        self._output = graph.output[0].name
        images = isinstance(calibrated.given, ImageInput)
        self._height = graph.input[0].type.tensor_type.shape.dim[2].dim_value if images else None
        self._limit = 64 if calibrated.weight_bits == 7 else 127
        self._steps: list[_Step] = []
        self._zeros: dict[str, int] = {}
        self._calibrated: dict[str, float] = {}  # scales
        self._constants: dict[str, Tensor] = {}  # of whole numbers, on the CPU
        self._rounded: set[str] = set()  # weights that are quantized
        self.weights, self.scales = nn.ParameterDict(), nn.ParameterDict()
        names: dict[str, str] = {INPUT: INPUT}  # a tensor of the graph -> where its value is found
        for node in graph.node:
            source = names.get(node.input[0], node.input[0])
            if node.op_type == "DequantizeLinear" and node.input[0] in stored:
                source = node.input[0].removesuffix("_quantized")
                if stored[node.input[0]].dtype == np.int8:
                    self._rounded.add(source)
            elif node.op_type == "QuantizeLinear":
                if source != INPUT:  # the input is exact
                    scale, zero = (stored[name].item() for name in node.input[1:3])
                    self.scales[_key(source)] = nn.Parameter(torch.tensor([scale]))
                    self._zeros[source], self._calibrated[source] = zero, scale
                    self._steps.append(_Step("QuantizeLinear", (source,), (source,), {}))
            elif node.op_type != "DequantizeLinear":
                if node.op_type not in OPERATORS:
                    raise StageFailed(f"int8_qat: {node.op_type} ({node.name}) cannot be trained here")
                inputs = tuple(names.get(name, name) for name in node.input)
                attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
                self._steps.append(_Step(node.op_type, inputs, tuple(node.output), attributes))
                continue
            names[node.output[0]] = source
        for step in self._steps:
            for name in step.inputs:
                if name in floats:
                    value = torch.tensor(floats[name])
                    if value.is_floating_point():
                        self.weights[_key(name)] = nn.Parameter(value)
                    else:
                        self._constants[name] = value

    def forward(self, x: Tensor) -> Tensor:
        """logits_NK of normalised images or of tokens, computed operator by operator."""
        if self._height is not None:
            x = _in_squares(x, x.shape[2] // self._height)
        values = {INPUT: x, **self._constants}
        for step in self._steps:
            if step.op == "QuantizeLinear":
                (name,) = step.outputs
                values[name] = self._activation(name, values[name])
            else:
                inputs = [values[name] if name in values else self._weight(name) for name in step.inputs]
                made = OPERATORS[step.op](inputs, step.attributes)
                values |= zip(step.outputs, made if isinstance(made, tuple) else (made,), strict=True)
        return values[self._output]

    def _activation(self, name: str, x: Tensor) -> Tensor:
        """`x` as uint8 would hold it; gradients reach the scale too."""
        zero = x.new_full((1,), self._zeros[name])
        factor = (x[0].numel() * QMAX) ** -0.5  # LSQ, section 2.2
        return torch._fake_quantize_learnable_per_tensor_affine(x, self.scale(name), zero, 0, QMAX, factor)

    @torch.no_grad()
    def scale(self, name: str) -> Tensor:
        """The learned scale of an activation, kept near the calibrated one: a steep step can carry the scale
        of a gate below zero, and then everything dies that the gate multiplies."""
        scale: Tensor = self.scales[_key(name)]
        return scale.clamp_(self._calibrated[name] / STRETCH, self._calibrated[name] * STRETCH)

    def _weight(self, name: str) -> Tensor:
        weight: Tensor = self.weights[_key(name)]
        if name not in self._rounded:
            return weight
        peak = weight.detach().abs().flatten(1).amax(1)
        scale = (peak / self._limit).clamp_min(torch.finfo(torch.float32).tiny)
        zeros = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -self._limit, self._limit)


def _in_squares(x_NCHW: Tensor, side: int) -> Tensor:
    """As `stem.in_squares` of these images."""
    count, channels, height, width = x_NCHW.shape
    squares = x_NCHW.reshape(count, channels, height // side, side, width // side, side)
    return squares.permute(0, 3, 5, 1, 2, 4).reshape(count, -1, height // side, width // side)


def _key(name: str) -> str:
    return name.replace(".", "/")  # torch keeps the dot for itself


def trained(network: IntegerGraph, calibrated: Calibrated, float_nodes: Collection[str]) -> onnx.ModelProto:
    """The int8 graph with what `network`, made from the same arguments, has learned."""
    model = copy.deepcopy(calibrated.model)
    for initializer in model.graph.initializer:
        key = _key(initializer.name)
        if key in network.weights:
            learned = np.ascontiguousarray(network.weights[key].detach().cpu().numpy())
            initializer.CopyFrom(numpy_helper.from_array(learned, initializer.name))
    overrides = {name: (float(network.scale(name).detach()), zero) for name, zero in network._zeros.items()}
    return quantize_static(dataclasses.replace(calibrated, model=model), float_nodes, overrides=overrides)
