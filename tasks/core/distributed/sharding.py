"""FSDP2: parameters, gradients and optimizer state divided among the ranks, for what does not fit one device.

Zhao et al. 2023, arXiv:2304.11277, as torch.distributed.fsdp.fully_shard has it. Before a part of the network is
computed its parameters are gathered, and given up again after it, so that a rank holds its share and one part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tasks.core.distributed.world import World
from tasks.core.models.depth import depth_units

# What shards is imported where it is used, and a DTensor known by its methods: it takes 0.4 s, and most do not shard.


def shard(model: nn.Module, world: World) -> None:
    """Divide what `model` holds among the ranks, in place; its parameters become DTensors on their devices."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    parts = depth_units(model)
    for part in parts if parts != [model] else []:
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each rank may hold a part, on every rank."""
    gather: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
    return gather() if gather else tensor


def own(tensor: Tensor) -> Tensor:
    """The part of a tensor that this rank holds, or all of it; what is done to its elements is done to the tensor."""
    local: Callable[[], Tensor] | None = getattr(tensor, "to_local", None)
    return local() if local else tensor


@dataclass(frozen=True)
class WholeModel:
    """The state of a model that is sharded, as if it were not; every rank has to ask, and has it on the CPU."""

    model: nn.Module

    def state_dict(self) -> dict[str, Any]:
        # One at a time: all of them may be more than the device holds.
        return {name: whole(tensor).cpu() for name, tensor in self.model.state_dict().items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        from torch.distributed.checkpoint.state_dict import set_model_state_dict

        set_model_state_dict(self.model, state_dict, options=_on_the_host())


@dataclass(frozen=True)
class WholeOptimizer:
    """As WholeModel, of the optimizer; the main rank alone has it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def state_dict(self) -> dict[str, Any]:
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

        state: Any = get_optimizer_state_dict(self.model, self.optimizer, options=_on_the_host())
        return dict(state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

        set_optimizer_state_dict(self.model, self.optimizer, state_dict, options=_on_the_host())


def _on_the_host() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)
