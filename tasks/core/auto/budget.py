"""A budget is compute, not epochs: what a step of a network costs, and how many of them a budget pays for.

Work is counted in multiply-accumulates (MACs) of fp32 on a CPU. A training step does three times the MACs of a forward
pass; beside them it moves activations through memory and starts operators, which for small networks takes longer.
Both are counted as the MACs that could have been done in that time: the rates below were fitted to the seconds of 28
training steps of 14 networks on 2 cores (benchmarks/work.py). Nothing here looks at a clock, so that equal data and
params give an equal recipe on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tasks.core.data.inputs import Input, TextInput
from tasks.core.models.saved import mac_count
from tasks.core.models.tables import Table

# MACs that are as much work as one number that an operator puts out, forward and backward; and as starting one.
PER_ACTIVATION, PER_OPERATOR = 160.0, 3.4e7
# And as updating one number of a table of words, all of which AdamW changes in every step: 8.7 ms for 2.6 million.
PER_TABLE_NUMBER = 290.0
BACKWARD = 3.0  # work of forward and backward, in forward passes


@dataclass(frozen=True)
class Cost:
    """What a network does for one example: MACs and the numbers that its operators put out; and how many operators, and
    numbers in tables of words, it has."""

    macs: int
    activations: int
    operators: int
    table: int = 0

    def of_step(self, batch: int) -> float:
        """The work of one training step on `batch` images."""
        image = BACKWARD * self.macs + PER_ACTIVATION * self.activations
        return batch * image + PER_OPERATOR * self.operators + PER_TABLE_NUMBER * self.table


def cost_of(model: nn.Module, given: Input) -> Cost:
    """What `model` costs on one example."""
    sizes: list[int] = []
    leaves = [module for module in model.modules() if not any(True for _ in module.children())]
    hooks = [leaf.register_forward_hook(_counting(sizes)) for leaf in leaves]
    training = model.training
    with torch.no_grad():
        model.eval()(torch.from_numpy(given.example()))
    model.train(training)
    for hook in hooks:
        hook.remove()
    table = sum(module.weight.numel() for module in model.modules() if isinstance(module, Table))
    return Cost(mac_count(model, given), sum(sizes), len(sizes), table)


def _counting(sizes: list[int]) -> Callable[[nn.Module, Any, Tensor | tuple[Tensor, ...]], None]:
    return lambda _, __, output: sizes.append(sum(tensor.numel() for tensor in _tensors(output)))


def _tensors(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)


# ---- from work to steps

DENSE = {"quick": 1.2e12, "normal": 2e13, "thorough": 6e13}  # work of training the dense model
SMALLEST_BATCH, LARGEST_BATCH = 16, 128
STEPS, STEPS_AN_EPOCH = 1500, 24  # that a batch leaves, unless it is the smallest
PASSES = 200  # over the images, at most
TEXT_PASSES = 10  # over texts, whose words a table learns by heart


@dataclass(frozen=True)
class Length:
    """How long something is trained."""

    batch_size: int
    epochs: int


def passes(work: float, cost: Cost, images: int, batch: int) -> float:
    """How many times `work` pays for a network of `cost` to learn from so many images, in such batches."""
    return work / cost.of_step(batch) * batch / images


def most_passes(given: Input) -> int:
    """Over such examples; more gain nothing."""
    return TEXT_PASSES if isinstance(given, TextInput) else PASSES


def batch_of(work: float, cost: Cost, images: int, most: int = PASSES) -> int:
    """The largest power of two, within bounds, that leaves so many steps: a network learns more from many small ones,
    and from LARGEST_BATCH on a CPU gains nothing by larger ones."""
    seen = min(work / cost.of_step(LARGEST_BATCH) * LARGEST_BATCH, most * images)
    fits = max(1, int(min(seen / STEPS, images / STEPS_AN_EPOCH)))
    return min(LARGEST_BATCH, max(SMALLEST_BATCH, 1 << fits.bit_length() - 1))


def length(work: float, cost: Cost, images: int, most: int = PASSES) -> Length:
    """What `work` pays for, but no more passes than anybody gains from, in batches of what suits it."""
    batch = batch_of(work, cost, images, most)
    return Length(batch, int(min(most, max(1, passes(work, cost, images, batch)))))
