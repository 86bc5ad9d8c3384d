"""The schemes of quantization, by name: each from a trained network to a graph.

A new scheme is one function here, one word in params.Scheme and one in params.yaml.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from tasks.core.quantization.bias_correction import correct_biases
from tasks.core.quantization.source import Made, Source, TrainableSource
from tasks.core.quantization.static import (
    depthwise,
    exact,
    layer_losses,
    quantize_on_the_fly,
    quantize_static,
    sensitive,
)
from tasks.core.quantization.stored import halve_weights, quantize_weights

RANKED_IMAGES = 256  # calibration images on which layers are ranked by what they lose


def corrected(source: Source, graph: onnx.ModelProto) -> onnx.ModelProto:
    """`graph`, made of `source`, with its biases corrected where depthwise convolutions are in int8: they need it."""
    if not depthwise(source.graph):
        return graph
    return correct_biases(graph, source.calibrated, source.x_N)


def _int8(source: Source) -> Made:
    """All that ONNX Runtime has an int8 kernel for, but the classifier and places in texts."""
    reasons = exact(source.graph)
    return Made.in_int8(corrected(source, quantize_static(source.calibrated, reasons)), reasons)


def _int8_mixed(source: Source) -> Made:
    """int8, but depthwise convolutions and the layers that lose most, so many as accuracy asks for.

    Layers are ranked by what each costs when it alone is quantized (Wu et al. 2020, arXiv:2004.09602,
    section 6.1), and go back to floating point, 1, 2, 4, … of them, until the graph loses no more than
    `mixed_loss_points` on the validation images.
    """
    reasons = sensitive(source.graph)
    wanted = source.accuracy(source.file(source.graph)) - source.params.mixed_loss_points / 100
    made = _without(source, reasons, {})
    if source.accuracy(source.file(made.graph)) >= wanted:
        return made
    losses = layer_losses(source.calibrated, source.x_N[:RANKED_IMAGES])
    ranked = [name for name in losses if name not in reasons]
    count = 1
    while True:
        costly = {name: f"alone it costs {losses[name]:.2g} nats in int8" for name in ranked[:count]}
        made = _without(source, reasons, costly)
        if count >= len(ranked) or source.accuracy(source.file(made.graph)) >= wanted:
            return made
        count *= 2


def _without(source: Source, rules: dict[str, str], costly: dict[str, str]) -> Made:
    """In int8 but for the layers named, with the reasons."""
    return Made.in_int8(quantize_static(source.calibrated, {**rules, **costly}), rules, costly)


def _int8_qat(source: TrainableSource) -> Made:
    """int8, trained to be."""
    from tasks.core.quantization.qat import learn  # with torch, which no other scheme needs

    return learn(source)


INTEGER_SCHEMES = ("int8", "int8_mixed", "int8_qat", "int8_dynamic")
SCHEMES: dict[str, Callable[[TrainableSource], Made]] = {
    "fp32": lambda source: Made(source.graph),
    "fp16": lambda source: Made(halve_weights(source.graph)),
    "int8": _int8,
    "int8_mixed": _int8_mixed,
    "int8_qat": _int8_qat,
    "int8_dynamic": lambda source: Made(quantize_on_the_fly(source.graph)),
    "int8_weights": lambda source: Made(quantize_weights(source.graph)),
}
