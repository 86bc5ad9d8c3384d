"""Designs of a compressed network, and what each is worth before anything is trained.

A design says which blocks leave, how many channels of each group, by which criterion, and what is quantized.
Trying one takes about a second: the dense network is traced, scored and exported once; then a copy is cut, its
batch norm is set anew, its numbers are poured into the exported graph, and the graph is quantized on a few
images, run on validation images and timed in turn with the dense graph.

x_NCHW: normalised float32 images.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from tasks.core.common.progress import Progress
from tasks.core.models.saved import is_rectified, rectify, smooth_activations
from tasks.core.models.tables import usage
from tasks.core.pruning.blocks import Block, find_blocks, gate_means, take_out
from tasks.core.pruning.channels import find_groups
from tasks.core.pruning.cutting import loss_gradients, prune_channels, score
from tasks.core.pruning.groups import Groups
from tasks.core.quantization.schemes import RANKED_IMAGES, corrected
from tasks.core.quantization.source import Made, Source
from tasks.core.quantization.static import (
    DEPTHWISE,
    depthwise,
    exact,
    layer_losses,
    quantize_static,
)
from tasks.core.quantization.stored import quantize_weights
from tasks.core.runtime.export import export, refill
from tasks.core.runtime.graphs import network_input
from tasks.core.runtime.latency import Latency, compare, interleaved
from tasks.core.runtime.session import call, predict, session
from tasks.core.training.batchnorm import recalibrate

TRIAL_CALIBRATION_IMAGES = 64
RECALIBRATION_IMAGES = 256
TIMED_SECONDS = 0.5  # of runs of the two graphs in turn
LEAST_RUNS, MOST_RUNS = 20, 400


@dataclass(frozen=True)
class Design:
    """How to compress.

    Attributes:
        ratios: share of the channels that leave, of each group.
        criterion: which of them, a key of pruning.CRITERIA.
        without: the blocks that leave.
        relu: whether smooth activations become ReLU.
        int8: whether the graph computes in int8; otherwise its weights alone are stored so, which costs no time.
        float_layers: so many of those that lose most in int8 stay float, the classifier not counted.
        float_depthwise: whether depthwise convolutions stay float.
    """

    ratios: Mapping[str, float]
    criterion: str
    int8: bool
    without: frozenset[str] = frozenset()
    relu: bool = False
    float_layers: int = 0
    float_depthwise: bool = False

    @property
    def scheme(self) -> str:
        """The name of the scheme that comes nearest."""
        if not self.int8:
            return "int8_weights"
        return "int8_mixed" if self.float_layers or self.float_depthwise else "int8"


@dataclass(frozen=True)
class Worth:
    """What a design measures: accuracy on validation images, a fraction; p50 latency of one image on one
    thread, and how many times as fast as the dense graph that is; size of the file in bytes."""

    accuracy: float
    latency_ms: float
    speedup: float
    size_bytes: int


class Bench:
    """Where designs are tried, all from one dense network.

    Args:
        network: the dense one.
        source: its graph, and the data.
        criteria: those that designs may name.
        images: validation images that accuracy is measured on, drawn as they come: what counts in the end is how many of
            all are right.
    """

    def __init__(
        self,
        network: nn.Module,
        source: Source,
        criteria: Sequence[str],
        round_to: int,
        images: int,
        seed: int,
    ) -> None:
        self.network, self.source = network, source
        dataset = source.dataset
        self.groups: Groups = find_groups(network, dataset.input, round_to)
        self._scores = {c: self._scored(c, seed) for c in criteria}
        example = torch.from_numpy(network_input(np.array(dataset.val.x_N[:2]), dataset.input))
        self.blocks: list[Block] = find_blocks(network, source.graph, example)
        self._gates = gate_means(network, self.blocks, dataset.train, dataset.input)
        drawn = np.random.default_rng(seed).permutation(len(dataset.val))[:images]
        self._val = dataset.val.taken(np.sort(drawn))
        self.dense = source.file(source.graph)
        self._dense_run = session(self.dense, 1)
        quick = source.params.model_copy(update={"calibration_images": TRIAL_CALIBRATION_IMAGES})
        self._quick = dataclasses.replace(source, params=quick)

    def _scored(self, criterion: str, seed: int) -> dict[str, Tensor]:
        dataset, gradients = self.source.dataset, None
        if criterion == "taylor":
            gradients = loss_gradients(self.network, dataset.train, dataset.input)
        return score(self.network, self.groups, criterion, gradients, seed, self._usage)

    @cached_property
    def _usage(self) -> dict[str, Tensor]:
        return usage(self.network, self.source.dataset.train.tokens_N)

    @cached_property
    def ranked(self) -> list[str]:
        """The layers that can be quantized, those that lose most in int8 first; depthwise ones are apart."""
        apart = {*exact(self.source.graph), *depthwise(self.source.graph)}
        losses = layer_losses(self._quick.calibrated, self._quick.x_N[:RANKED_IMAGES])
        return [name for name in losses if name not in apart]

    @cached_property
    def has_smooth(self) -> bool:
        return bool(smooth_activations(self.network))

    @cached_property
    def _rectified_graph(self) -> onnx.ModelProto:
        network = copy.deepcopy(self.network)
        rectify(network)
        return export(network, self.source.dataset.input)

    @cached_property
    def has_depthwise(self) -> bool:
        return bool(depthwise(self.source.graph))

    def cut(self, design: Design) -> nn.Module:
        """A copy of the dense network without what leaves, its batch norm set anew."""
        network = copy.deepcopy(self.network)
        if design.relu:
            rectify(network)
        take_out(network, [block for block in self.blocks if block.name in design.without], self._gates)
        prune_channels(network, self.groups, self._scores[design.criterion], design.ratios)
        dataset = self.source.dataset
        recalibrate(network, dataset.train, dataset.input, RECALIBRATION_IMAGES)
        return network

    def source_of(self, network: nn.Module, quick: bool = False) -> Source:
        """What schemes start from, for a network that `cut` made."""
        base = self._quick if quick else self.source
        graph = self._rectified_graph if is_rectified(network) else self.source.graph
        return dataclasses.replace(base, graph=refill(graph, network))

    def quantized(self, design: Design, source: Source) -> Made:
        """The graph of `source` in the precision of `design`."""
        if not design.int8:
            return Made(quantize_weights(source.graph))
        costly = dict.fromkeys(self.ranked[: design.float_layers], "among the layers that lose most in int8")
        by_rule = exact(source.graph)
        if design.float_depthwise:
            by_rule |= dict.fromkeys(depthwise(source.graph), DEPTHWISE)
        return Made.in_int8(quantize_static(source.calibrated, {**costly, **by_rule}), by_rule, costly)

    def delivered(self, design: Design, source: Source) -> Made:
        """As `quantized`, with biases corrected: too slow for every trial."""
        made = self.quantized(design, source)
        if not design.int8 or design.float_depthwise:
            return made
        return dataclasses.replace(made, graph=corrected(source, made.graph))

    def worth(self, design: Design) -> Worth:
        """Try a design, untrained."""
        source = self.source_of(self.cut(design), quick=True)
        content = source.file(self.quantized(design, source).graph)
        return self.measured(content)

    def measured(self, content: bytes) -> Worth:
        """What a file is worth."""
        right_N = predict(session(content, 2), self._val.raw_N).argmax(1) == self._val.labels_N
        timed = self._time(content)
        return Worth(float(right_N.mean()), timed.p50_ms, timed.speedup, len(content))

    def _time(self, content: bytes) -> Latency:
        """Of a file, in turn with the dense graph: one image on one thread."""
        sessions = {"dense": self._dense_run, "design": session(content, 1)}
        calls = {name: call(run, self._val.typical(1).raw_N) for name, run in sessions.items()}
        for once in calls.values():
            once()
        started = time.perf_counter()
        for once in calls.values():
            once()
        runs = int(TIMED_SECONDS / (time.perf_counter() - started))
        return compare(interleaved(calls, min(MOST_RUNS, max(LEAST_RUNS, runs))), "dense")["design"]


def sensitivity(
    bench: Bench,
    criterion: str,
    ratios: Sequence[float],
    merit: Callable[[Worth], float],
    progress: Progress,
) -> list[dict[str, Any]]:
    """What each group alone costs and gains: its worth when it loses a share of its channels and every other
    group keeps all (Li et al. 2016, arXiv:1608.08710, section 3.2); and each block, of which all leaves.

    Args:
        merit: of the two precisions, everything is measured in the one that has more of it.

    Returns:
        A row each; the first is the whole network's.
    """
    whole = [
        (design, bench.worth(design)) for design in (Design({}, criterion, int8) for int8 in (True, False))
    ]
    base, worth = max(whole, key=lambda pair: merit(pair[1]))
    rows = [_row("", 0.0, base, worth)]
    progress.step(f"whole, in {base.scheme}: {worth.accuracy:.2%}, {worth.speedup:.2f} times faster")
    alone = [
        (group.name, ratio, dataclasses.replace(base, ratios={group.name: ratio}))
        for group in bench.groups.prunable
        for ratio in ratios
    ]
    alone += [(b.name, 1.0, dataclasses.replace(base, without=frozenset([b.name]))) for b in bench.blocks]
    for name, ratio, design in alone:
        worth = bench.worth(design)
        rows.append(_row(name, ratio, design, worth))
        progress.step(f"{name} {ratio}: {worth.accuracy:.2%}, {worth.speedup:.2f} times faster")
    return rows


def _row(group: str, ratio: float, design: Design, worth: Worth) -> dict[str, Any]:
    return {"group": group, "ratio": ratio, "int8": design.int8, **dataclasses.asdict(worth)}
