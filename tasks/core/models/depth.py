"""The depth of a network's layers: which of them learn, and how fast, when it has learned something before."""

from __future__ import annotations

from torch import nn

LARGE = 0.5  # a container with more than this share of the parameters is looked into


def depth_units(model: nn.Module) -> list[nn.Module]:
    """The parts of `model` that hold parameters, from the input to the output, none of which holds most of them
    unless it cannot be divided."""
    total = sum(p.numel() for p in model.parameters())

    def divide(module: nn.Module) -> list[nn.Module]:
        parts = [child for child in module.children() if any(True for _ in child.parameters())]
        own = any(True for _ in module.parameters(recurse=False))
        large = sum(p.numel() for p in module.parameters()) > LARGE * total
        if own or not parts or not (large or module is model):
            return [module]
        return [unit for part in parts for unit in divide(part)]

    return divide(model)


def learning_units(units: int, epoch: int, freeze_epochs: int, unfreeze_epochs: int) -> int:
    """How many of the last `units` learn in an epoch (counted from 0): one for `freeze_epochs`, then evenly more
    over `unfreeze_epochs`, then all (Howard & Ruder 2018, arXiv:1801.06146, section 3.3)."""
    if epoch < freeze_epochs:
        return 1
    done = epoch - freeze_epochs
    if done >= unfreeze_epochs:
        return units
    return 1 + (units - 1) * (done + 1) // (unfreeze_epochs + 1)
