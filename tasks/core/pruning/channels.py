"""Which channels of a network leave together, found by tracing it, and how they leave.

torch-pruning follows autograd's graph from the logits back to the image (Fang et al. 2023, "DepGraph",
arXiv:2301.12900). What is kept of it here names layers and holds none, so that one tracing, which takes
a second or more, serves every copy of the network; cutting takes milliseconds.

C: channels of a group. M: entries of a layer's axis that go with one channel: 1, or as many as there
are pixels where a layer takes a flattened map.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from tasks.core.common.errors import StageFailed
from tasks.core.data.inputs import Input
from tasks.core.models.saved import WIDTHS
from tasks.core.models.tables import Table
from tasks.core.pruning.groups import (
    HEADS,
    ROWS,
    Group,
    Groups,
    KeptWhole,
    Member,
    torch_pruning,
    untraced,
)


def find_groups(model: nn.Module, given: Input, round_to: int) -> Groups:
    """Trace `model`, and try on a copy that it still computes with half of each group's channels.

    Args:
        given: what it takes.
        round_to: widths become a multiple of it; a group without room for that is kept whole.

    Raises:
        StageFailed: the network does not compute, cannot be traced, or no longer computes with fewer
            channels. The line names the layer.
    """
    device = next(model.parameters()).device
    x = torch.from_numpy(given.example()).to(device)
    _compute(model, x, "does not compute")
    graph = _trace(model, x)
    names = {module: name for name, module in model.named_modules()}
    for module, name in names.items():
        if type(module) in WIDTHS and module not in graph.module2node:
            raise StageFailed(
                f"{name} ({type(module).__name__}): tracing does not pass it (its network branches, or "
                "stops the gradient): what depends on its channels is unknown, so nothing is pruned"
            )

    order = {name: place for place, name in enumerate(names.values())}
    prunable: list[Group] = []
    kept_whole: list[KeptWhole] = []
    outputs: list[str] = []
    for traced in graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear, nn.Embedding]):
        makers = [
            names[dep.target.module]
            for dep, _ in traced
            if isinstance(dep.target.module, _ConvNd | nn.Linear | nn.Embedding)
            and graph.is_out_channel_pruning_fn(dep.handler)
        ]
        name, size = min(makers, key=order.__getitem__), len(traced[0].idxs)
        reason = _obstacle(graph, traced, names)
        if reason == IS_OUTPUT:
            outputs += makers
        members = [] if reason else _members(graph, traced, names, size)
        if not reason and None in members:
            reason = "its channels do not reach every layer that depends on them in equal parts"
        if not reason and size <= round_to:
            reason = f"it has {size} channels, and widths are multiples of {round_to}"
        if reason:
            kept_whole.append(KeptWhole(name, reason))
        else:
            prunable.append(Group(name, size, round_to, tuple(m for m in members if m is not None)))
    for group in [group for group in prunable if _leads_to_classes(group, model, outputs)]:
        prunable.remove(group)
        kept_whole.append(KeptWhole(group.name, "quantization stores its rows in fewer numbers than classes"))
    prunable += untraced(model, round_to)
    narrowed = {member.layer for group in prunable for member in group.members if member.axis == "out"}
    kept_whole = [kept for kept in kept_whole if kept.layer not in narrowed]
    groups = Groups(
        tuple(
            sorted(
                prunable,
                key=lambda group: order[group.name.removesuffix(f".{ROWS}").removesuffix(f".{HEADS}")],
            )
        ),
        tuple(sorted(kept_whole, key=lambda kept: order[kept.layer])),
        tuple(sorted(outputs, key=order.__getitem__)),
    )
    trial = copy.deepcopy(model)
    cut(trial, groups, {group.name: range(group.width // 2) for group in groups.prunable})
    _compute(trial, x, "no longer computes when channels are removed")
    return groups


def cut(model: nn.Module, groups: Groups, gone: Mapping[str, Sequence[int]]) -> Groups:
    """Remove channels from `model`, in place. Layers that it lacks (`models.remove_blocks`) have none to lose.

    Args:
        gone: which channels leave, for each group by name; a group without mention keeps all.

    Returns:
        The groups as they are now.
    """
    entries: dict[tuple[str, str], list[Tensor]] = {}
    removes: dict[tuple[str, str], Callable[[nn.Module, list[int]], nn.Module]] = {}
    for group in groups.prunable:
        leaving = torch.tensor(list(gone.get(group.name, ())), dtype=torch.int64)
        for member in group.members if len(leaving) else ():
            key = (member.layer, member.axis)
            # Layers after a concatenation belong to several groups: their entries leave at once.
            entries.setdefault(key, []).append(member.index_CM[leaving].flatten())
            removes[key] = member.remove
    removed = {key: torch.unique(torch.cat(parts)) for key, parts in entries.items()}
    layers = dict(model.named_modules())
    with torch.no_grad():
        for (layer, axis), index in removed.items():
            if layer in layers:
                removes[layer, axis](layers[layer], index.tolist())
    # Slicing leaves weights in another memory format, which sums in another order.
    model.to(memory_format=torch.channels_last)

    def narrowed(group: Group) -> Group:
        """What is left of a group, its entries numbered anew."""
        stays = torch.ones(group.width, dtype=torch.bool)
        stays[list(gone.get(group.name, ()))] = False
        members = []
        for member in group.members:
            index_CM = member.index_CM[stays]
            before = removed.get((member.layer, member.axis))
            if before is not None:  # an entry moves up by as many as left before it
                index_CM = index_CM - torch.searchsorted(before, index_CM)
            members.append(replace(member, index_CM=index_CM))
        return replace(group, width=int(stays.sum()), members=tuple(members))

    return replace(groups, prunable=tuple(narrowed(group) for group in groups.prunable))


# ---- tracing

IS_OUTPUT = "its outputs are the classes"


def _compute(model: nn.Module, x: Tensor, complaint: str) -> None:
    """Run `model` once. Raises StageFailed naming the innermost module that could not."""
    inside: list[str] = []

    def leave(*_: object) -> None:
        inside.pop()

    hooks: list[Any] = []
    for name, module in model.named_modules():
        label = name or type(model).__name__
        hooks.append(module.register_forward_pre_hook(lambda *_, label=label: inside.append(label)))
        hooks.append(module.register_forward_hook(leave))
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(x)
    except Exception as error:
        raise StageFailed(f"{inside[-1]}: {complaint}: {_one_line(error)}") from error
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()


def _trace(model: nn.Module, x: Tensor) -> Any:
    """torch-pruning's dependency graph. It sets the network to eval mode, and may raise anything."""
    training = model.training
    try:
        return torch_pruning().DependencyGraph().build_dependency(model, x, verbose=False)
    except Exception as error:
        raise StageFailed(f"{type(model).__name__}: cannot be traced: {_one_line(error)}") from error
    finally:
        model.train(training)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _obstacle(graph: Any, traced: Iterable[Any], names: Mapping[nn.Module, str]) -> str | None:
    """Why the channels of a traced group must all stay, or None."""
    kinds = torch_pruning().ops.OPTYPE
    for dep, _ in traced:
        node, module = dep.target, dep.target.module
        if node.type == kinds.OUTPUT or (not node.outputs and graph.is_out_channel_pruning_fn(dep.handler)):
            return IS_OUTPUT
        if node.type == kinds.PARAMETER:
            return f"it is coupled with {graph._param_to_name[module]}, a parameter outside any layer"
        if module not in names:
            continue
        where = f"it is coupled with {names[module]}"
        if type(module) not in WIDTHS:
            return f"{where}: the width of {type(module).__name__} cannot change"
        if isinstance(module, nn.Conv2d) and 1 < module.groups < module.out_channels:
            return f"{where}, a convolution in {module.groups} groups"
    return None


def _members(
    graph: Any, traced: Iterable[Any], names: Mapping[nn.Module, str], size: int
) -> list[Member | None]:
    """A member for each layer and axis of a traced group; None where the channels spread unevenly."""
    members: list[Member | None] = []
    for item in traced:
        dep, module = item.dep, item.dep.target.module
        if module not in names:  # an operation without weights
            continue
        axis: Literal["out", "in"] = "out" if graph.is_out_channel_pruning_fn(dep.handler) else "in"
        if None in item.root_idxs:
            members.append(None)
            continue
        roots, entries = torch.tensor(item.root_idxs), torch.tensor(item.idxs)
        each, extra = divmod(len(roots), size)
        if extra or not each or (torch.bincount(roots, minlength=size) != each).any():
            members.append(None)
            continue
        index_CM = entries[roots.argsort(stable=True)].reshape(size, each)
        members.append(Member(names[module], axis, index_CM, dep.handler))
    return members


def _leads_to_classes(group: Group, model: nn.Module, outputs: Sequence[str]) -> bool:
    """Whether it is the width of a table of words that only the classes read: `quantization.low_rank` shortens its rows at the
    same answers, so that channels which leave would cost accuracy and save nothing."""
    layers = dict(model.named_modules())
    tables = {name for name in group.layers if isinstance(layers[name], Table)}
    readers = [layers[name] for name in group.layers if name in outputs]
    return tables | set(outputs) >= set(group.layers) and all(
        isinstance(reader, nn.Linear) and reader.out_features <= group.width for reader in readers
    )
