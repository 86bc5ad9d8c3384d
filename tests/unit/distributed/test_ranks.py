"""One rank and two, at the same global batch, compute the same function."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.data.dataset import Split
from tasks.core.distributed.sharding import own
from tasks.core.distributed.world import World, shared
from tasks.core.models.saved import sparsity
from tasks.core.training.learner import learning
from tasks.core.training.loop import epochs
from tasks.core.training.optimizer import Recipe
from tests.ranks import Run, ranks
from tests.unit.training.test_loop import POLICY, TRAIN, VAL, network, same

pytestmark = pytest.mark.slow  # processes

FIRST_STEPS = Recipe(epochs=1, batch_size=32, lr=0.05)
RECIPE = Recipe(epochs=2, batch_size=32, lr=0.05, ema_decay=0.9, label_smoothing=0.1, clip_norm=5.0)


@pytest.fixture(scope="module")
def on_two_ranks() -> Iterator[Run]:
    with ranks(2) as run:
        yield run


class Double(nn.Module):
    """A network in float64, which takes the float32 images of the engine."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.net(x_NCHW.double())
        return logits_NK


class DoubleTargets(BatchAugment):
    def __call__(self, *given: Any, **named: Any) -> tuple[Tensor, Tensor]:
        x_NCHW, targets_NK = super().__call__(*given, **named)
        return x_NCHW, targets_NK.double()


def trained(world: World, double: bool, shard: bool) -> dict[str, Tensor]:
    """A whole training in float64, or the first three steps in float32, which then drifts."""
    torch.set_num_threads(1)
    net = network(dropout=0.0)  # which each rank draws for itself
    model: nn.Module = Double(net) if double else net
    augment = (DoubleTargets if double else BatchAugment)(POLICY)
    train = TRAIN if double else Split(TRAIN.raw_N[:96], TRAIN.labels_N[:96])
    recipe = replace(RECIPE if double else FIRST_STEPS, shard=shard)
    list(epochs(model, recipe, train, VAL, augment, 2, world))
    return model.state_dict()


def one_of_two(rank: int, folder: Path, double: bool, shard: bool) -> None:
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(trained(World(rank, 2, torch.device("cpu")), double, shard), folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize(("double", "tolerance"), [(True, 1e-9), (False, 1e-3)])
def test_two_ranks_end_with_the_weights_of_one_when_the_global_batch_is_the_same(
    double: bool, tolerance: float, shard: bool, on_two_ranks: Run, tmp_path: Path
) -> None:
    whole = trained(World(0, 1, torch.device("cpu")), double, shard)
    on_two_ranks(one_of_two, folder=tmp_path, double=double, shard=shard)
    for rank in (0, 1):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, tensor in whole.items():
            assert torch.allclose(state[name], tensor, rtol=tolerance, atol=tolerance / 10), name


def tell(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"))
    for content in (b"weights", b""):
        found = shared(content if rank == 0 else b"", world)
        (folder / f"{rank}-{len(content)}").write_bytes(found)
    distributed.destroy_process_group()


def test_every_rank_has_what_the_main_one_has_when_it_is_shared(on_two_ranks: Run, tmp_path: Path) -> None:
    on_two_ranks(tell, folder=tmp_path)
    assert [(tmp_path / f"{rank}-7").read_bytes() for rank in (0, 1)] == [b"weights"] * 2
    assert [(tmp_path / f"{rank}-0").read_bytes() for rank in (0, 1)] == [b""] * 2
    assert shared(b"alone", World(0, 1, torch.device("cpu"))) == b"alone"


def with_everything(rank: int, folder: Path) -> None:
    """Sharded: what a rank holds, and a training that stops after its first epoch and goes on."""
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.set_num_threads(1)
    world = World(rank, 2, torch.device("cpu"))
    recipe = replace(RECIPE, shard=True, optimizer="adamw", lr=0.005, accumulate=2, l1=0.1, bn_sparsity=1e-4)
    with learning(network(), recipe, 1, world) as learner:
        weights = list(learner.model.parameters())
        mine = sum(own(weight).numel() for weight in weights) / sum(weight.numel() for weight in weights)
    through, resumed = network(), network()
    begin = partial(epochs, recipe=recipe, train=TRAIN, val=VAL, augment=BatchAugment(POLICY), num_classes=2)
    rows = list(begin(through, world=world))
    next(stopped := begin(network(), world=world, checkpoint=folder / "run"))
    stopped.close()
    later = list(begin(resumed, world=world, checkpoint=folder / "run"))
    found = {"share": mine, "same": same(through, resumed) and rows == later}
    (folder / f"{rank}.json").write_text(json.dumps({**found, "zeros": sparsity(through)}), encoding="utf-8")
    distributed.destroy_process_group()


def test_sharded_training_divides_the_weights_and_goes_on_to_the_same_bits_when_it_was_stopped(
    on_two_ranks: Run, tmp_path: Path
) -> None:
    on_two_ranks(with_everything, folder=tmp_path)
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1))
    assert one["share"] < 0.6 and other["share"] < 0.6 and one["share"] + other["share"] == pytest.approx(1)
    assert one["same"] and other["same"]
    assert one["zeros"] == other["zeros"] > 0
