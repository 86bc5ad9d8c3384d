"""Training on a GPU: what differs from a CPU is where the images lie, bf16, and how the ranks speak."""

import gc
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.common.errors import StageFailed
from tasks.core.data.dataset import Split
from tasks.core.distributed.world import World, deterministic
from tasks.core.models.architectures import build
from tasks.core.models.spec import Spec
from tasks.core.pruning.cutting import Pruner, loss_gradients
from tasks.core.training import batches, cuda_graphs
from tasks.core.training.batches import TrainingBatches
from tasks.core.training.loop import Epoch, Teacher, epochs
from tasks.core.training.optimizer import Recipe
from tests.unit.training.test_loop import ALONE, GIVEN, POLICY, RECIPE, TRAIN, VAL, network, same

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GPU = World(0, 1, torch.device("cuda", 0))
LAUNCHED_ONE_BY_ONE = "kernel by kernel"


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    deterministic(warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def train(model: nn.Module, recipe: Recipe = RECIPE, **options: Any) -> list[Epoch]:
    return list(epochs(model, recipe, TRAIN, VAL, BatchAugment(POLICY), 2, GPU, **options))


@pytest.mark.parametrize("compiled", [False, True])
def test_training_learns_and_repeats_itself_to_the_bit_when_on_a_gpu(compiled: bool) -> None:
    one, two = network(), network()
    recipe = replace(RECIPE, compile=compiled)
    history = train(one, recipe)
    assert history[-1].val_accuracy > 0.95
    assert train(two, recipe) == history
    assert same(one, two)


def test_training_ends_with_the_same_weights_when_it_was_cut_off_on_a_gpu(tmp_path: Path) -> None:
    whole, resumed = network(), network(seed=9)
    history = train(whole)
    running = epochs(network(), RECIPE, TRAIN, VAL, BatchAugment(POLICY), 2, GPU, checkpoint=tmp_path)
    assert [row.epoch for row in islice(running, 2)] == [1, 2]
    running.close()
    assert train(resumed, checkpoint=tmp_path) == history
    assert same(whole, resumed)


@pytest.mark.parametrize("resident", [0.0, 0.25])
def test_batches_are_those_of_a_cpu_when_they_are_on_a_gpu(
    resident: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "RESIDENT", resident)
    for epoch in (0, 1):
        there = list(TrainingBatches(TRAIN, RECIPE, GPU.device).epoch(epoch))
        here = list(TrainingBatches(TRAIN, RECIPE, ALONE.device).epoch(epoch))
        assert len(there) == len(here) == len(TRAIN) // RECIPE.batch_size
        for (x_NHWC, labels_N), (expected_NHWC, expected_N) in zip(there, here, strict=True):
            assert x_NHWC.is_cuda and labels_N.is_cuda
            assert torch.equal(x_NHWC.cpu(), expected_NHWC) and torch.equal(labels_N.cpu(), expected_N)


def test_weights_are_those_of_separate_launches_when_a_step_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = replace(RECIPE, accumulate=2, clip_norm=1.0, unfreeze_epochs=2, l1=1e-3)
    recorded, launched = network(), network()
    history = train(recorded, recipe)
    monkeypatch.setattr(cuda_graphs, "WARM_UP", 10**9)
    assert train(launched, recipe) == history
    assert same(recorded, launched)


class Looking(nn.Module):
    """A network that reads a result while it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.net(x_NCHW)
        return logits_NK * min(1.0, float(logits_NK.detach().abs().max()) + 1)


def test_training_says_so_and_learns_when_a_step_cannot_be_recorded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(Looking())[-1].val_accuracy > 0.95
    said = [line for line in capsys.readouterr().out.splitlines() if "waits for the GPU" in line]
    assert len(said) == 1 and "test_gpu.py" in said[0]


def test_step_is_recorded_when_it_learns_from_a_teacher(capsys: pytest.CaptureFixture[str]) -> None:
    teacher = network(seed=1).cuda().eval()
    assert train(network(), teacher=Teacher(teacher, 2.0, 0.5))[-1].val_loss < 0.7
    assert LAUNCHED_ONE_BY_ONE not in capsys.readouterr().out


def test_step_is_recorded_when_channels_were_removed_before(capsys: pytest.CaptureFixture[str]) -> None:
    student = network().cuda()
    gc.disable()  # what tracing leaves behind stays until something sees to it
    try:
        Pruner(
            student, GIVEN, 0.5, "taylor", "uniform", 1, 1, 0,
            lambda: loss_gradients(student, TRAIN, GIVEN),
        ).step()  # fmt: skip
        assert train(student)[-1].val_accuracy > 0.95
    finally:
        gc.enable()
    assert LAUNCHED_ONE_BY_ONE not in capsys.readouterr().out


def test_training_learns_when_batches_are_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    resident, ahead = network(), network()
    history = train(resident)
    monkeypatch.setattr(batches, "RESIDENT", 0.0)
    assert train(ahead) == history
    assert same(resident, ahead)


def test_training_says_how_many_images_fit_when_the_gpu_is_full() -> None:
    gc.collect()
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved() + (128 << 20)
    torch.cuda.set_per_process_memory_fraction(held / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(StageFailed, match=r"out of memory with 512 examples at once: \d+ fit"):
            wide = replace(RECIPE, batch_size=512)
            model = build(Spec("resnet_small", 64, 0.0, (16, 16, 1), 2))
            list(epochs(model, wide, TRAIN, VAL, BatchAugment(POLICY), 2, GPU))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def first_steps(world: World) -> nn.Module:
    """Three of them: bf16 then drifts."""
    model = network(dropout=0.0)
    train = Split(TRAIN.raw_N[:96], TRAIN.labels_N[:96])
    list(epochs(model, replace(RECIPE, epochs=1, ema_decay=0.0), train, VAL, BatchAugment(POLICY), 2, world))
    return model.cpu()


def one_of_two(rank: int, folder: str) -> None:
    """Gloo: NCCL wants a GPU for each rank, and there may be one."""
    deterministic(warn_only=True)
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(first_steps(replace(GPU, rank=rank, size=2)).state_dict(), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_learn_what_one_does_when_they_are_on_a_gpu() -> None:
    alone = first_steps(GPU).state_dict()
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(one_of_two, (folder,), nprocs=2)  # type: ignore[no-untyped-call]
        one, other = (torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, tensor in alone.items():
        assert torch.equal(one[name], other[name]), name
        assert torch.allclose(one[name], tensor, rtol=0.1, atol=0.05), name
