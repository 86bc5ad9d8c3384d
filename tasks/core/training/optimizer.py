"""How a step changes weights: the optimizer, its learning rate over time, and what draws weights to zero.

Everything is a function of a Recipe; `engine.epochs` calls it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from tasks.core.models.depth import depth_units

ONE_CYCLE_START, ONE_CYCLE_END, ONE_CYCLE_RISE = 1 / 25, 1 / 250_000, 0.3  # factors of lr; share of the steps


@dataclass(frozen=True)
class Recipe:
    """How to train; the fields are those of TrainParams that have the same name."""

    epochs: int
    batch_size: int
    lr: float
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    clip_norm: float = 0.0
    accumulate: int = 1
    label_smoothing: float = 0.0
    class_weights: str = "none"
    logit_adjustment: float = 0.0
    ema_decay: float = 0.0
    early_stopping: int = 0
    freeze_epochs: int = 0
    unfreeze_epochs: int = 0
    depth_decay: float = 1.0
    l1: float = 0.0
    bn_sparsity: float = 0.0
    shard: bool = False
    compile: bool = False
    seed: int = 0


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with Nesterov's momentum, or AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101).

    Weight decay is for weights: norms and biases, which have one dimension, are left alone. With `depth_decay`
    layers learn the slower the nearer they are to the input (Howard & Ruder 2018, arXiv:1801.06146).
    """
    units = depth_units(model) if recipe.depth_decay < 1 else [model]
    groups = [
        {
            "params": [p for p in unit.parameters() if (p.ndim > 1) is weights],
            "lr": recipe.lr * recipe.depth_decay**above,
            "weight_decay": recipe.weight_decay if weights else 0.0,
        }
        for above, unit in enumerate(reversed(units))
        for weights in (True, False)
    ]
    # One kernel instead of many; on a CPU it is no faster. SGD's does not take weights that begin to learn later.
    later = recipe.freeze_epochs + recipe.unfreeze_epochs > 0
    fused = True if next(model.parameters()).is_cuda and not later else None
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, fused=fused)
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)


def lr_factor(recipe: Recipe, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor of lr at a step: a linear warm-up to where the schedule begins, then the schedule."""
    total = recipe.epochs * steps_per_epoch
    warmup = min(recipe.warmup_epochs * steps_per_epoch, total / 2)
    shape = SCHEDULES[recipe.schedule]

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1) * shape(0.0)
        return shape(min(1.0, (step - warmup) / max(1.0, total - warmup)))

    return factor


def _half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


def _one_cycle(done: float) -> float:
    """Smith & Topin 2017, arXiv:1708.07120: up, and then down to far below the beginning."""
    if done < ONE_CYCLE_RISE:
        return _half_cosine(ONE_CYCLE_START, 1.0, done / ONE_CYCLE_RISE)
    return _half_cosine(1.0, ONE_CYCLE_END, (done - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))


# The factor of lr, by the share of the steps that is done.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "cosine": lambda done: _half_cosine(1.0, 0.0, done),  # Loshchilov & Hutter 2016, arXiv:1608.03983
    "step": lambda done: 0.1 ** ((done >= 0.5) + (done >= 0.75)),  # He et al. 2015, arXiv:1512.03385
    "exponential": lambda done: float(0.001**done),
    "one_cycle": _one_cycle,
}


@torch.no_grad()
def shrink_scales(scales: list[Tensor], strength: float) -> None:
    """Add the subgradient of `strength` * sum |scale|: network slimming, Liu et al. 2017, arXiv:1708.06519."""
    torch._foreach_add_(
        [cast(Tensor, scale.grad) for scale in scales], torch._foreach_sign(scales), alpha=strength
    )


@torch.no_grad()
def soft_threshold(weights: Iterable[Tensor], amount: float) -> None:
    """Move every weight towards zero by `amount`, and no further: a proximal step of the L1 norm, after which
    weights are zero and not only small. Parikh & Boyd 2014, "Proximal Algorithms", section 6.5.2."""
    for weight in weights:
        weight.copy_(nn.functional.softshrink(weight, amount))
