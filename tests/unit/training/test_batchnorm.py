"""Batch norm whose batch lies on two ranks."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

from tasks.core.distributed.world import World
from tasks.core.training.batchnorm import shared_statistics
from tests.ranks import Run, ranks

pytestmark = pytest.mark.slow  # processes


@pytest.fixture(scope="module")
def on_two_ranks() -> Iterator[Run]:
    with ranks(2) as run:
        yield run


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


def trained(x_NCHW: Tensor, model: nn.Module, ranks: int = 1) -> dict[str, Tensor]:
    """Gradients and buffers after the loss has gone back, gradients summed over the ranks."""
    model(x_NCHW).square().sum().backward()
    tensors = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    if ranks > 1:
        for gradient in tensors.values():
            distributed.all_reduce(gradient)
    return tensors | dict(model.named_buffers())


def one_of_two(rank: int, folder: Path, x_NCHW: Tensor, compiled: bool, hosts: int) -> None:
    os.environ["LOCAL_WORLD_SIZE"] = str(2 // hosts)
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    model = network()
    with shared_statistics(model, World(rank, 2, torch.device("cpu"))):
        if compiled:
            model.compile()
        found = trained(x_NCHW[rank::2], model, 2)
    assert type(model[1]) is nn.BatchNorm2d  # type: ignore[index]
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("hosts", [1, 2])
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_and_statistics_are_those_of_the_whole_batch_when_two_ranks_share_it(
    compiled: bool, hosts: int, on_two_ranks: Run, tmp_path: Path
) -> None:
    x_NCHW = torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(1)) * 3 + 5
    whole = trained(x_NCHW, network())
    on_two_ranks(one_of_two, folder=tmp_path, x_NCHW=x_NCHW, compiled=compiled, hosts=hosts)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, tensor in whole.items():
            assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-4), name
