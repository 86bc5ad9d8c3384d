"""Structured pruning: whole channels leave, with everything that depended on them.

A criterion is a name for a torch-pruning importance: a callable from a group of coupled layers to
one score a channel. Fang et al. 2023, "DepGraph", arXiv:2301.12900.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch_pruning
from torch import nn

# Each from its paper: magnitude, Li et al. 2016, arXiv:1608.08710; batch norm's scale, Liu et al.
# 2017, arXiv:1708.06519; random is the control that the others must beat.
CRITERIA: dict[str, Callable[[], Any]] = {
    "l1": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=1),
    "l2": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2),
    "bn_scale": lambda: torch_pruning.importance.BNScaleImportance(),
    "random": lambda: torch_pruning.importance.RandomImportance(),
}


class Pruner:
    """Removes channels from `model` in place, in `steps` equal parts.

    Args:
        ratio: share of the channels that is gone after the last step.
        scope: "uniform" takes this share of every group, "global" of all channels together.
        round_to: every width stays a multiple of this (CPU kernels work on blocks of 8).
    """

    def __init__(
        self,
        model: nn.Module,
        image_shape: tuple[int, int, int],
        ratio: float,
        criterion: str,
        scope: str,
        steps: int,
        round_to: int,
    ) -> None:
        height, width, channels = image_shape
        self._model = model
        self._pruner = torch_pruning.pruner.BasePruner(
            model,
            torch.zeros(1, channels, height, width),
            importance=CRITERIA[criterion](),
            pruning_ratio=ratio,
            global_pruning=scope == "global",
            max_pruning_ratio=0.9,  # a global search must not close a layer
            iterative_steps=steps,
            round_to=round_to,
            ignored_layers=[_classifier(model)],
        )

    def step(self) -> None:
        """Remove the next part."""
        self._pruner.step()
        # Slicing leaves weights in another memory format, which sums in another order.
        self._model.to(memory_format=torch.channels_last)


def _classifier(model: nn.Module) -> nn.Module:
    """The last linear layer, whose outputs are the classes."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
