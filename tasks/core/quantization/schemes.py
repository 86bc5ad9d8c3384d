"""The schemes of quantization, by name: each from a trained network to a graph.

A new scheme is one function here, one word in params.Scheme and one in params.yaml.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from tasks.core.augmentation.batch import BatchAugment, pixel_scale
from tasks.core.common.progress import Progress
from tasks.core.config.compression_params import QuantizeParams
from tasks.core.data.dataset import Dataset, balanced
from tasks.core.distributed.world import world
from tasks.core.quantization.bias_correction import correct_biases
from tasks.core.quantization.qat import IntegerGraph, trained
from tasks.core.quantization.static import (
    Calibrated,
    calibrate,
    classifier,
    depthwise,
    halve_weights,
    layer_losses,
    quantize_on_the_fly,
    quantize_static,
    quantize_weights,
)
from tasks.core.runtime.export import take_raw_images, to_bytes
from tasks.core.runtime.session import predict, session
from tasks.core.training.loop import Teacher, epochs
from tasks.core.training.optimizer import Recipe
from tasks.core.training.recipes import note

RANKED_IMAGES = 256  # calibration images on which layers are ranked by what they lose


@dataclass(frozen=True)
class Source:
    """What a scheme starts from: a network, its float graph (`export.export`) and the data."""

    params: QuantizeParams
    dataset: Dataset
    augment: BatchAugment
    network: nn.Module
    graph: onnx.ModelProto

    @cached_property
    def pixels(self) -> tuple[int, float]:
        """Zero point and scale of the input."""
        return pixel_scale(self.dataset.channel_mean, self.dataset.channel_std)

    @cached_property
    def images_NHWC(self) -> NDArray[np.uint8]:
        """The calibration images, of all classes alike: what calibration never sees, int8 clips."""
        train = self.dataset.train
        rows = balanced(train.labels_N, self.params.calibration_images, self.params.seed)
        return np.ascontiguousarray(train.images_NHWC[rows])

    @cached_property
    def calibrated(self) -> Calibrated:
        """The graph with the ranges of its tensors."""
        return calibrate(
            self.graph,
            self.images_NHWC,
            *self.pixels,
            method=self.params.calibrator,
            weight_bits=self.params.weight_bits,
            per_channel=self.params.per_channel,
        )

    def file(self, graph: onnx.ModelProto) -> bytes:
        """`graph`, from x_NCHW to logits, as the content of a file that takes raw images."""
        return to_bytes(take_raw_images(graph, self.dataset.image_shape, *self.pixels))

    def logits(self, content: bytes) -> NDArray[np.float32]:
        """Of the validation images, [N, K]."""
        return predict(session(content, 1), self.dataset.val.images_NHWC)

    def accuracy(self, content: bytes) -> float:
        """On the validation images."""
        return float((self.logits(content).argmax(1) == self.dataset.val.labels_N).mean())


@dataclass(frozen=True)
class Made:
    """A graph from x_NCHW to logits, why nodes of it stayed in floating point, and what went otherwise than
    asked for."""

    graph: onnx.ModelProto
    reasons: dict[str, str] = field(default_factory=dict)
    warning: str = ""


CLASSIFIER = "the classifier: logits are not rounded"
DEPTHWISE = "depthwise: int8 gains little and loses most"


def _sensitive(source: Source) -> dict[str, str]:
    """What loses in int8 without gaining from it."""
    kept = dict.fromkeys(depthwise(source.graph), DEPTHWISE)
    return {**kept, classifier(source.graph): CLASSIFIER}


def corrected(source: Source, graph: onnx.ModelProto) -> onnx.ModelProto:
    """`graph`, made of `source`, with its biases corrected where depthwise convolutions are in int8: they need it."""
    if not depthwise(source.graph):
        return graph
    return correct_biases(graph, source.calibrated, source.images_NHWC)


def _int8(source: Source) -> Made:
    """All that ONNX Runtime has an int8 kernel for, but the classifier."""
    reasons = {classifier(source.graph): CLASSIFIER}
    return Made(corrected(source, quantize_static(source.calibrated, reasons)), reasons)


def _int8_mixed(source: Source) -> Made:
    """int8, but depthwise convolutions and the layers that lose most, so many as accuracy asks for.

    Layers are ranked by what each costs when it alone is quantized (Wu et al. 2020, arXiv:2004.09602,
    section 6.1), and go back to floating point, 1, 2, 4, … of them, until the graph loses no more than
    `mixed_loss_points` on the validation images.
    """
    reasons = _sensitive(source)
    losses = layer_losses(source.calibrated, source.images_NHWC[:RANKED_IMAGES])
    ranked = [name for name in losses if name not in reasons]
    wanted = source.accuracy(source.file(source.graph)) - source.params.mixed_loss_points / 100
    count = 0
    while True:
        costly = {name: f"alone it costs {losses[name]:.2g} nats in int8" for name in ranked[:count]}
        made = Made(quantize_static(source.calibrated, {**reasons, **costly}), {**reasons, **costly})
        if count >= len(ranked) or source.accuracy(source.file(made.graph)) >= wanted:
            return made
        count = max(1, 2 * count)


def _int8_qat(source: Source) -> Made:
    """int8, trained to be: the network in floating point teaches the graph, on images for training.

    Where that made it worse, what stood before the training is given back, with a warning.
    """
    params = source.params
    reasons = _sensitive(source)
    untrained = quantize_static(source.calibrated, reasons)
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
            source.dataset.train,
            source.dataset.val,
            source.augment,
            len(source.dataset.classes),
            ranks,
            teacher=Teacher(source.network.to(ranks.device), temperature=2.0, weight=0.9),
        )
        progress.over(rows, note)
    source.network.cpu()
    learned = trained(student.cpu(), source.calibrated, reasons)
    before, after = (source.accuracy(source.file(graph)) for graph in (untrained, learned))
    if after < before:
        warning = f"training in int8 led from {before:.2%} to {after:.2%} on the validation images"
        return Made(untrained, reasons, f"{warning}: what stood before it was kept; lower quantize.qat_lr")
    return Made(learned, reasons)


INTEGER_SCHEMES = ("int8", "int8_mixed", "int8_qat", "int8_dynamic")
SCHEMES: dict[str, Callable[[Source], Made]] = {
    "fp32": lambda source: Made(source.graph),
    "fp16": lambda source: Made(halve_weights(source.graph)),
    "int8": _int8,
    "int8_mixed": _int8_mixed,
    "int8_qat": _int8_qat,
    "int8_dynamic": lambda source: Made(quantize_on_the_fly(source.graph)),
    "int8_weights": lambda source: Made(quantize_weights(source.graph)),
}
