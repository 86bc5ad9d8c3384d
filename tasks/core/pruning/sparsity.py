"""Sparsity: single weights become zero, and stay zero while the others learn.

Reported for what it is: a runtime for dense matrices computes with the zeros as with any number, so
the model is no faster, and smaller only once it is compressed.

A mask is boolean, of its weight's shape, True where the weight stays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from tasks.core.data.inputs import Input
from tasks.core.pruning.channels import IS_OUTPUT, find_groups
from tasks.core.pruning.groups import KeptWhole

Masks = dict[str, Tensor]
PATTERN = "2of4"


def sparsify(model: nn.Module, share: float) -> Masks:
    """Set the smallest `share` of all weights of convolutions and linear layers to zero, in place.

    Global magnitude; Han et al. 2015, arXiv:1506.02626.
    """
    weights = _weights(model)
    flat = torch.cat([weight.detach().flatten() for weight in weights.values()])
    smallest = torch_prune.L1Unstructured(share)
    stays = smallest.compute_mask(flat, torch.ones_like(flat)).bool()  # type: ignore[no-untyped-call]
    parts = stays.split([weight.numel() for weight in weights.values()])
    masks = {
        name: part.reshape(weight.shape) for (name, weight), part in zip(weights.items(), parts, strict=True)
    }
    return _applied(weights, masks)


def sparsify_2of4(model: nn.Module, skip: Collection[str]) -> tuple[Masks, list[KeptWhole]]:
    """Of each four consecutive weights along the inputs, set the two smallest to zero, in place.

    Mishra et al. 2021, arXiv:2104.08378: the pattern that sparse tensor cores compute with.

    Args:
        skip: layers that stay dense, those whose outputs are the classes.

    Returns:
        The masks, and the layers that stayed dense.
    """
    masks: Masks = {}
    dense: list[KeptWhole] = []
    weights = _weights(model)
    for name, weight in weights.items():
        layer = name.removesuffix(".weight")
        inputs = weight.shape[1]  # of one group of a convolution: 1 if it is depthwise
        if layer in skip:
            dense.append(KeptWhole(layer, IS_OUTPUT))
        elif inputs % 4:
            dense.append(KeptWhole(layer, f"its inputs ({inputs}) are no multiple of 4"))
        else:
            fours = weight.detach().movedim(1, -1)
            largest = fours.abs().reshape(-1, 4).topk(2, dim=1).indices
            stays = torch.zeros(fours.numel() // 4, 4, dtype=torch.bool, device=weight.device)
            masks[name] = stays.scatter_(1, largest, True).reshape(fours.shape).movedim(-1, 1)
    return _applied(weights, masks), dense


def hold(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Keep at zero what `masks` made zero, whatever trains `model` from now on.

    The gradient of a zero weight is zero, so its momentum and its decay are zero as well.
    """
    for name, mask in masks.items():
        model.get_parameter(name).register_hook(partial(torch.mul, mask))  # type: ignore[no-untyped-call]


class Sparsifier:
    """Sets weights of `model` to zero and holds them there, in `steps` parts of growing share.

    Args:
        amount: the share of the weights that is zero after the last step, or "2of4", which is reached
            in the first.

    Raises:
        StageFailed: 2of4, and the network cannot be traced.
    """

    def __init__(self, model: nn.Module, given: Input, amount: float | str, steps: int) -> None:
        self._model, self._amount, self._steps, self._done = model, amount, steps, 0
        self._skip = find_groups(model, given, 1).outputs if amount == PATTERN else ()
        self._dense: list[KeptWhole] = []

    def step(self) -> None:
        """Set the next part to zero; what is zero stays so, being smallest."""
        self._done += 1
        if isinstance(self._amount, str):
            masks, self._dense = sparsify_2of4(self._model, self._skip)
        else:
            masks = sparsify(self._model, self._amount * self._done / self._steps)
        hold(self._model, masks)

    def kept_whole(self) -> list[KeptWhole]:
        """The layers that have stayed dense, and why."""
        return self._dense


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


@torch.no_grad()
def _applied(weights: Mapping[str, Tensor], masks: Masks) -> Masks:
    for name, mask in masks.items():
        weights[name].masked_fill_(~mask, 0.0)
    return masks
