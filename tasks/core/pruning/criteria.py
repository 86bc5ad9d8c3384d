"""Criteria of structured pruning: from the weights of coupled layers to one score a channel, the least leaves first.

C: channels of a group. K: the weights of one layer that go with one channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Part:
    """What one layer holds for each channel of a group: the weights along its outputs, which make the
    channel, or along its inputs, which read it, or a row of a table of words; and their gradients on a batch, for taylor.

    Rows come times the root of how often they are read in training, the norm of what comes in: words that are rare matter
    little, whatever their rows say (Sun et al. 2023, "Wanda", arXiv:2306.11695)."""

    layer: nn.Module
    axis: Literal["out", "in", "rows"]
    weights_CK: Tensor
    gradients_CK: Tensor | None = None


def l1(parts: Sequence[Part]) -> Tensor:
    """Sum of absolute weights, the mean over the coupled layers, relative to the group's mean.

    Li et al. 2016, arXiv:1608.08710.
    """
    return _relative(mean(part.weights_CK.abs().sum(1) for part in parts))


def l2(parts: Sequence[Part]) -> Tensor:
    """As l1, with squared weights; it ranks the channels of a layer as their L2 norms do.

    Li et al. 2016, arXiv:1608.08710.
    """
    return _relative(_energy(parts))


def bn_scale(parts: Sequence[Part]) -> Tensor:
    """Absolute scale of batch norm, the mean over the coupled norms, comparable between groups.

    Liu et al. 2017, "network slimming", arXiv:1708.06519, which first trains with `train.bn_sparsity`.
    A group without batch norm falls back to l2.
    """
    norms = [part for part in parts if isinstance(part.layer, nn.BatchNorm2d)]
    return mean(part.weights_CK.abs().sum(1) for part in norms) if norms else l2(parts)


def taylor(parts: Sequence[Part]) -> Tensor:
    """Square of the first-order change of the loss if the channel were zero, comparable between groups.

    Molchanov et al. 2019, arXiv:1906.10771. Their gate on a channel has the gradient sum(weight *
    gradient) over all weights that read the channel; none has to be put in. Over batches, the mean.
    Rows of words fall back to l2: a sample of texts holds few of them.
    """
    if all(part.axis == "rows" for part in parts):
        return l2(parts)
    readers = [part for part in parts if part.axis != "out"]
    change_C = torch.zeros(len(parts[0].weights_CK), device=parts[0].weights_CK.device)
    for part in readers:
        assert part.gradients_CK is not None, "taylor needs gradients"
        change_C += (part.weights_CK * part.gradients_CK).sum(1)
    return change_C.square()


def lamp(parts: Sequence[Part]) -> Tensor:
    """A channel's energy as a share of its own and that of all stronger channels of its group.

    Lee et al. 2020, arXiv:2010.07611. Within a group it ranks as l2: only a global scope tells them
    apart, where the strongest channel of every group scores 1 and stays.
    """
    energy_C = _energy(parts)
    order = energy_C.argsort(stable=True)
    rising_C = energy_C[order]
    share_C = rising_C / rising_C.flip(0).cumsum(0).flip(0).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.empty_like(energy_C).scatter_(0, order, share_C)


def random(parts: Sequence[Part]) -> Tensor:
    """The control that the others must beat; follows from torch's seed."""
    return torch.rand(len(parts[0].weights_CK))


CRITERIA: dict[str, Callable[[Sequence[Part]], Tensor]] = {
    "l1": l1,
    "l2": l2,
    "bn_scale": bn_scale,
    "taylor": taylor,
    "lamp": lamp,
    "random": random,
}


def mean(scores: Iterable[Tensor]) -> Tensor:
    """The mean of scores_C of one group: over its layers, or over batches."""
    return torch.stack(list(scores)).mean(0)


def _energy(parts: Sequence[Part]) -> Tensor:
    return mean(part.weights_CK.square().sum(1) for part in parts)


def _relative(scores_C: Tensor) -> Tensor:
    return scores_C / scores_C.mean().clamp_min(torch.finfo(torch.float32).tiny)
