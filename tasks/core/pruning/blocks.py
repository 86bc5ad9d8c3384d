"""Depth pruning: whole blocks leave a network, those that run beside a shortcut, and gates.

A residual block that leaves hands on what came to it (Chen and Zhao 2018, "Shallowing deep networks",
doi:10.1109/TPAMI.2018.2874634). A gate, as of squeeze-and-excitation (arXiv:1709.01507), becomes a constant
for each channel, which the next convolution takes into its weights.

C: channels of a gate.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from tasks.core.data.dataset import Split
from tasks.core.data.inputs import Input
from tasks.core.models.saved import remove_blocks
from tasks.core.runtime.branches import bypass, find_branches
from tasks.core.runtime.graphs import INPUT
from tasks.core.runtime.session import session
from tasks.core.training.batches import sample

GATE_IMAGES = 512
GATE_BATCH = 128
TOLERANCE = 1e-3  # of a logit


@dataclass(frozen=True)
class Block:
    """A submodule that can leave.

    Attributes:
        readers: for a gate, the convolutions that read what it scales; else none.
    """

    name: str
    readers: tuple[str, ...] = ()


def find_blocks(model: nn.Module, graph: onnx.ModelProto, x: Tensor) -> list[Block]:
    """The blocks of `model` (eval mode, CPU) that can leave, in its order; tried one by one, not assumed.

    Args:
        graph: what `export` made of the model.
        x: input of the network, on which both are to compute the same.
    """
    blocks = []
    for branch in find_branches(graph.graph):
        for name in _holding(model, branch.layers):
            if _same_without(name, model, graph, x):
                convs = [model.get_submodule(reader) for reader in branch.readers]
                scalable = branch.gate and all(isinstance(c, nn.Conv2d) and c.groups == 1 for c in convs)
                blocks.append(Block(name, tuple(sorted(branch.readers)) if scalable else ()))
                break
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    return sorted(blocks, key=lambda block: order[block.name])


def _holding(model: nn.Module, layers: Collection[str]) -> Iterator[str]:
    """The submodules that hold exactly these convolutions and linear layers, the outermost first."""
    weighted = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for name, _ in model.named_modules():
        if name and {layer for layer in weighted if layer.startswith(f"{name}.")} == set(layers):
            yield name


def _same_without(block: str, model: nn.Module, graph: onnx.ModelProto, x: Tensor) -> bool:
    """Whether the model without the block computes what the graph without its branch computes."""
    smaller, bypassed = copy.deepcopy(model), copy.deepcopy(graph)
    remove_blocks(smaller, [block])
    bypass(bypassed.graph, [block])
    del bypassed.graph.value_info[:]
    try:
        with torch.no_grad():
            logits_NK = smaller(x).numpy()
    except RuntimeError:  # widths do not fit
        return False
    (found_NK,) = session(bypassed.SerializeToString(), 1).run(None, {INPUT: x.numpy()})
    scale = max(1.0, float(np.abs(logits_NK).max()))
    return bool(np.abs(logits_NK - found_NK).max() <= TOLERANCE * scale)


@torch.inference_mode()
def gate_means(model: nn.Module, blocks: Sequence[Block], split: Split, given: Input) -> dict[str, Tensor]:
    """For each gate among `blocks`, the constants_C that come nearest to it on images, by least squares."""
    sums: dict[str, Tensor] = defaultdict(lambda: torch.tensor(0.0))  # of products and of squares, each a C

    def hook(name: str) -> Any:
        """Adds to the sums of a gate what goes into it and comes out."""

        def add(_: nn.Module, inputs: tuple[Tensor], after_NCHW: Tensor) -> None:
            (before_NCHW,) = inputs
            sums[name] = sums[name] + torch.stack([before_NCHW * after_NCHW, before_NCHW.square()]).sum(
                (1, 3, 4)
            )

        return add

    gates = [block.name for block in blocks if block.readers]
    hooks = [model.get_submodule(name).register_forward_hook(hook(name)) for name in gates]
    for x, _ in sample(model, split, given, GATE_IMAGES, GATE_BATCH) if gates else ():
        model(x)
    for handle in hooks:
        handle.remove()
    return {
        name: products / squares.clamp_min(torch.finfo(torch.float32).tiny)
        for name, (products, squares) in sums.items()
    }


@torch.no_grad()
def take_out(model: nn.Module, blocks: Sequence[Block], gates: Mapping[str, Tensor]) -> None:
    """Remove `blocks` from `model`, in place; the layers after a gate take over its mean.

    Args:
        gates: what `gate_means` gave.
    """
    for block in blocks:
        for reader in block.readers:
            model.get_submodule(reader).weight.mul_(gates[block.name][:, None, None])  # type: ignore[operator]
    remove_blocks(model, [block.name for block in blocks])
