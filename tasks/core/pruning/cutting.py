"""Structured pruning: whole channels leave, with everything that depended on them.

find_groups (of channels.py) finds what leaves together, `score` says how much each channel matters,
`prune_channels` removes those that matter least: each can be called on its own, so that a search over
ratios traces and scores once and then only cuts. `Pruner` does it all in steps.

C: channels of a group. K: the weights of one layer that go with one channel. N: images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.data.dataset import Split
from tasks.core.data.inputs import Input
from tasks.core.data.texts import Tokens
from tasks.core.models import tables
from tasks.core.models.tables import Table
from tasks.core.pruning.channels import cut, find_groups
from tasks.core.pruning.criteria import CRITERIA, Part, mean
from tasks.core.pruning.groups import Group, Groups, KeptWhole
from tasks.core.training.batches import sample
from tasks.core.training.pointwise import sound_gradients

LEAST_KEPT = 0.1  # of a group's channels, in a global scope: no layer is closed
GRADIENT_BATCH = 64
GRADIENT_IMAGES = 2048


def score(
    model: nn.Module,
    groups: Groups,
    criterion: str,
    gradients: Iterable[Mapping[str, Tensor]] | None = None,
    seed: int = 0,
    usage: Mapping[str, Tensor] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """Scores_C of each group, by its name.

    Args:
        gradients: what `loss_gradients` gives, for taylor: the scores are the mean over its batches.
        seed: of random.
        usage: how often rows of words are read, as `tables.usage` gives it; without, all alike.
    """
    sums: dict[str, list[Tensor]] = {group.name: [] for group in groups.prunable}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for batch in [None] if gradients is None else gradients:
            for group in groups.prunable:
                sums[group.name].append(CRITERIA[criterion](_parts(model, group, batch, usage)).cpu())
    return {name: mean(scores) for name, scores in sums.items()}


def _parts(
    model: nn.Module, group: Group, gradients: Mapping[str, Tensor] | None, usage: Mapping[str, Tensor]
) -> list[Part]:
    parts = []
    for member in group.members:
        layer = model.get_submodule(member.layer)
        index_CM = member.index_CM.to(layer.weight.device)  # type: ignore[arg-type]

        # A table has its channels where other layers have their inputs.
        first = "rows" if isinstance(layer, Table) else "out"

        def rows(values: Tensor, as_is: bool = member.axis == first, index_CM: Tensor = index_CM) -> Tensor:
            return (values if as_is else values.transpose(0, 1))[index_CM].flatten(1)

        gradient = None if gradients is None else rows(gradients[f"{member.layer}.weight"])
        weights_CK = rows(layer.weight)  # type: ignore[arg-type]
        if member.axis == "rows" and member.layer in usage:
            read_C = usage[member.layer].to(weights_CK.device)[index_CM[:, 0]]
            weights_CK = weights_CK * read_C.sqrt()[:, None]
        parts.append(Part(layer, member.axis, weights_CK, gradient))
    return parts


def prune_channels(
    model: nn.Module,
    groups: Groups,
    scores: Mapping[str, Tensor],
    ratios: float | Mapping[str, float],
    scope: str = "uniform",
    full: Mapping[str, int] | None = None,
) -> Groups:
    """Remove the channels with the lowest scores from `model`, in place and without tracing.

    Widths are rounded to the nearest multiple of `group.multiple`, and never to nothing.

    Args:
        groups: of a network with the same layers and widths.
        scores: what `score` gave for such a network.
        ratios: share of the channels that leave: of every group, or of each group by its name (one
            without mention keeps all).
        scope: "uniform" takes one ratio from every group, "global" from all channels together.
        full: the widths that the ratios are shares of, by group; None: the present ones.

    Returns:
        The groups as they are now.

    Raises:
        BadInput: a ratio is not in [0, 1), or no group has this name.
    """
    full = full or {group.name: group.width for group in groups.prunable}
    _check(ratios, full)
    if not isinstance(ratios, Mapping) and scope == "global":
        wanted = _global_widths(groups, scores, ratios, full)
    else:
        wanted = {
            name: width * (1 - (ratios.get(name, 0.0) if isinstance(ratios, Mapping) else ratios))
            for name, width in full.items()
        }
    gone = {}
    for group in groups.prunable:
        # Nearest, and up from the middle; the small term is for 16 * (1 - 0.25) and its like.
        blocks = math.floor(wanted[group.name] / group.multiple + 0.5 + 1e-9)
        width = min(group.width, max(1, blocks) * group.multiple)
        gone[group.name] = scores[group.name].argsort(stable=True)[: group.width - width].tolist()
    return cut(model, groups, gone)


def _check(ratios: float | Mapping[str, float], full: Mapping[str, int]) -> None:
    if isinstance(ratios, Mapping) and (unknown := sorted(set(ratios) - set(full))):
        raise BadInput(
            f"ratios: {', '.join(unknown)}: no such group of channels (there are: {', '.join(full)})"
        )
    for ratio in ratios.values() if isinstance(ratios, Mapping) else [ratios]:
        if not 0 <= ratio < 1:
            raise BadInput(f"ratios: {ratio} is not a share of the channels in [0, 1)")


def _global_widths(
    groups: Groups, scores: Mapping[str, Tensor], ratio: float, full: Mapping[str, int]
) -> dict[str, float]:
    """How wide each group is when the lowest scores of all groups together have left."""
    leaving = round(sum(group.width for group in groups.prunable) - sum(full.values()) * (1 - ratio))
    owner = torch.cat([torch.full((g.width,), i) for i, g in enumerate(groups.prunable)])
    lowest = torch.cat([scores[g.name] for g in groups.prunable]).argsort(stable=True)[: max(0, leaving)]
    taken = torch.bincount(owner[lowest], minlength=len(groups.prunable)).tolist()
    return {
        group.name: max(group.width - count, LEAST_KEPT * full[group.name])
        for group, count in zip(groups.prunable, taken, strict=True)
    }


class Pruner:
    """Removes channels from `model` in place, in `steps` equal parts.

    Args:
        ratio: share of the channels that is gone after the last step.
        gradients: gives taylor those of the loss, anew in each step.
        tokens: of the texts for training, which say how often each row of words is read.

    Raises:
        StageFailed: the network cannot be traced, or nothing in it can be pruned.
    """

    def __init__(
        self,
        model: nn.Module,
        given: Input,
        ratio: float,
        criterion: str,
        scope: str,
        steps: int,
        round_to: int,
        seed: int = 0,
        gradients: Callable[[], Iterable[Mapping[str, Tensor]]] | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self._model, self._ratio, self._scope, self._steps, self._tokens = model, ratio, scope, steps, tokens
        self._criterion, self._seed, self._gradients = criterion, seed, gradients
        self._groups = find_groups(model, given, round_to)
        self._full = {group.name: group.width for group in self._groups.prunable}
        self._done = 0
        if not self._full:
            reasons = "; ".join(f"{kept.layer}: {kept.reason}" for kept in self._groups.kept_whole)
            raise StageFailed(
                f"nothing can be pruned: {reasons or 'no convolution or linear layer was found'}"
            )

    def step(self) -> None:
        """Remove the next part."""
        self._done += 1
        needed = self._gradients() if self._gradients and self._criterion == "taylor" else None
        read = tables.usage(self._model, self._tokens)
        scores = score(self._model, self._groups, self._criterion, needed, self._seed, read)
        ratio = self._ratio * self._done / self._steps
        self._groups = prune_channels(self._model, self._groups, scores, ratio, self._scope, self._full)

    def kept_whole(self) -> list[KeptWhole]:
        """The layers that have lost nothing so far, and why."""
        rounded = [
            KeptWhole(group.name, f"none of its {group.width} channels leaves at this ratio")
            for group in self._groups.prunable
            if group.width == self._full[group.name]
        ]
        return [*self._groups.kept_whole, *rounded]


# ---- what is computed on training images


def loss_gradients(
    model: nn.Module, split: Split, given: Input, images: int = GRADIENT_IMAGES
) -> Iterator[dict[str, Tensor]]:
    """For each batch of a sample of `split`, the gradient of the loss by the name of the parameter."""
    training = model.training
    names, parameters = zip(*model.named_parameters(), strict=True)
    for x, labels_N in sample(model, split, given, images, GRADIENT_BATCH):
        with torch.enable_grad(), sound_gradients(model):
            loss = F.cross_entropy(model.eval()(x), labels_N)
            gradients = torch.autograd.grad(loss, parameters)
        model.train(training)
        yield dict(zip(names, gradients, strict=True))
