"""What of a network leaves together: channels of coupled layers, the rows of a table of words, the heads of an attention.

C: channels of a group. M: entries of a layer's axis that go with one channel: 1, or as many as there
are pixels where a layer takes a flattened map.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tasks.core.models.tables import Table
from tasks.core.models.text_transformer import HEAD, Attention

ROWS, HEADS = "rows", "heads"


@dataclass(frozen=True)
class Member:
    """A layer's part in a group: along its outputs (a norm has no other), its inputs or, of a table of words, its rows, the
    entries `index_CM` belong to the channels, and `remove` takes entries out of the layer."""

    layer: str
    axis: Literal["out", "in", "rows"]
    index_CM: Tensor
    remove: Callable[[nn.Module, list[int]], nn.Module]


@dataclass(frozen=True)
class Group:
    """Channels of coupled layers: if one leaves a layer it leaves all. Named by the first layer, in
    the network's order, that makes them. The rows of a table of words are a group, too, and so are the heads of an attention.
    Widths become multiples of `multiple`."""

    name: str
    width: int
    multiple: int
    members: tuple[Member, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer of the group, once."""
        return tuple(dict.fromkeys(member.layer for member in self.members))


@dataclass(frozen=True)
class KeptWhole:
    """A layer that loses nothing, and why."""

    layer: str
    reason: str


@dataclass(frozen=True)
class Groups:
    """What tracing found, for every network with the same layers and widths.

    Attributes:
        prunable: the groups that can be narrowed.
        kept_whole: those that cannot.
        outputs: the layers whose outputs are the classes.
    """

    prunable: tuple[Group, ...]
    kept_whole: tuple[KeptWhole, ...]
    outputs: tuple[str, ...]


# ---- groups that tracing does not see


def untraced(model: nn.Module, round_to: int) -> Iterator[Group]:
    """The rows of its tables and the heads of its attentions, where some can leave."""
    for name, module in model.named_modules():
        if isinstance(module, Table) and module.num_embeddings - 1 > round_to:
            yield Group(f"{name}.{ROWS}", module.num_embeddings - 1, round_to, (_rows(name, module),))
        elif isinstance(module, Attention) and module.heads > 1:
            yield _heads(name, module)


def _rows(name: str, table: Table) -> Member:
    """Row 0, of what is not in the table, stays."""
    return Member(name, "rows", torch.arange(1, table.num_embeddings)[:, None], _without_rows)


def _without_rows(table: nn.Module, gone: list[int]) -> nn.Module:
    assert isinstance(table, Table)
    stays = torch.ones(table.num_embeddings, dtype=torch.bool)
    stays[gone] = False
    table.keep(stays)
    return table


def _heads(name: str, attention: Attention) -> Group:
    """What belongs to a head stands together, so that tracing sees channels which depend on others of the same layer."""
    removes = torch_pruning()

    def entries(each: int) -> Tensor:
        return torch.arange(attention.heads * each).reshape(-1, each)

    members = (
        Member(f"{name}.given.0", "out", entries(3 * HEAD), removes.prune_conv_out_channels),
        Member(f"{name}.given.1", "out", entries(3 * HEAD), removes.prune_batchnorm_out_channels),
        Member(f"{name}.gives.0", "in", entries(HEAD), removes.prune_conv_in_channels),
    )
    return Group(f"{name}.{HEADS}", attention.heads, 1, members)


def torch_pruning() -> Any:
    """The library, without timm: where that is installed, torch-pruning imports it, and with it torchvision and torch's
    compiler, three seconds in all, to count the operations of layers that nobody asks about here."""
    alone = not {"timm", "torch_pruning"} & sys.modules.keys()
    if alone:
        sys.modules["timm"] = None  # type: ignore[assignment]  # what Python takes for a module that is not there
    try:
        import torch_pruning
    finally:
        if alone:
            del sys.modules["timm"]
    return torch_pruning
