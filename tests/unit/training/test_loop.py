"""The training loop: it learns, repeats itself to the bit, resumes, and says when it cannot go on."""

import copy
import re
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.augmentation.policy import of_images
from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.config.params import AugmentParams
from tasks.core.data.dataset import Split
from tasks.core.data.inputs import ImageInput
from tasks.core.distributed.world import World
from tasks.core.models.architectures import build
from tasks.core.models.saved import sparsity
from tasks.core.models.spec import Spec
from tasks.core.training.batchnorm import recalibrate
from tasks.core.training.loop import Epoch, Teacher, epochs, predict
from tasks.core.training.optimizer import SCHEDULES, Recipe, lr_factor

ROOT = Path(__file__).parents[3]
ALONE = World(0, 1, torch.device("cpu"))
GIVEN = ImageInput((16, 16, 1), [0.3], [0.3])
POLICY = of_images(AugmentParams(flip_horizontal=False, crop=1), GIVEN)
RECIPE = Recipe(epochs=3, batch_size=32, lr=0.05, ema_decay=0.9)


def stripes(count: int, seed: int) -> Split:
    """Noise with a bright row or a bright column: two classes that a small network tells apart."""
    draws = np.random.default_rng(seed)
    images = draws.integers(0, 120, (count, 16, 16, 1)).astype(np.uint8)
    labels = (np.arange(count) % 2).astype(np.int64)
    for i, label in enumerate(labels):
        where = draws.integers(2, 14)
        images[(i, where) if label else (i, slice(None), where)] = 255
    return Split(images, labels)


TRAIN, VAL = stripes(512, 0), stripes(128, 1)


def network(seed: int = 0, dropout: float = 0.1) -> nn.Module:
    torch.manual_seed(seed)
    return build(Spec("resnet_small", 8, dropout, (16, 16, 1), 2))


def train(model: nn.Module, recipe: Recipe = RECIPE, **options: Any) -> list[Epoch]:
    return list(epochs(model, recipe, TRAIN, VAL, BatchAugment(POLICY), 2, ALONE, **options))


class Counted(BatchAugment):
    """Counts the batches that it is asked for."""

    batches = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.batches += 1
        return super().__call__(*args, **kwargs)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_training_learns_when_there_is_something_to_learn(optimizer: str, schedule: str) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, schedule=schedule, lr=0.05 if optimizer == "sgd" else 0.005)
    history = train(network(), recipe)
    assert history[-1].val_accuracy > 0.95
    assert history[-1].train_loss < history[0].train_loss


@pytest.mark.slow
def test_training_learns_the_same_when_it_is_compiled() -> None:
    plain, compiled = network(dropout=0.0), network(dropout=0.0)
    recipe = replace(RECIPE, epochs=1)
    expected, found = train(plain, recipe), train(compiled, replace(recipe, compile=True))
    assert found[0].train_loss == pytest.approx(expected[0].train_loss, rel=0.01)
    assert plain.state_dict().keys() == compiled.state_dict().keys()


def test_training_is_refused_in_one_line_when_there_is_no_compiler_to_compile_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadInput, match=r"train\.compile needs a C\+\+ compiler"):
        train(network(), replace(RECIPE, compile=True))


def test_training_gives_the_same_weights_to_the_bit_when_run_twice() -> None:
    one, two = network(), network()
    assert train(one) == train(two)
    assert same(one, two)


def test_training_ends_with_the_same_weights_when_it_was_cut_off_and_resumed(tmp_path: Path) -> None:
    whole, broken, resumed = network(), network(), network(seed=9)
    history = train(whole)
    running = epochs(broken, RECIPE, TRAIN, VAL, BatchAugment(POLICY), 2, ALONE, checkpoint=tmp_path / "kept")
    assert [row.epoch for row in islice(running, 2)] == [1, 2]
    running.close()
    assert train(resumed, checkpoint=tmp_path / "kept") == history
    assert same(whole, resumed)


@pytest.mark.parametrize(("damaged", "trained"), [(1, 1), (2, 3)])
def test_training_goes_on_from_an_older_checkpoint_when_the_newest_are_damaged(
    damaged: int, trained: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, resumed = network(), network()
    train(whole, checkpoint=tmp_path)
    newest = sorted(tmp_path.iterdir())
    assert [path.name for path in newest] == ["epoch-000002.ckpt", "epoch-000003.ckpt"]
    for path in newest[-damaged:]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    augment = Counted(POLICY)
    rows = list(epochs(resumed, RECIPE, TRAIN, VAL, augment, 2, ALONE, checkpoint=tmp_path))
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert augment.batches == trained * (512 // RECIPE.batch_size)
    assert same(whole, resumed)
    assert capsys.readouterr().out.count("is damaged; going on from an older checkpoint") == damaged


def test_training_stops_early_when_the_validation_loss_no_longer_falls() -> None:
    recipe = replace(RECIPE, epochs=30, early_stopping=2, schedule="constant", ema_decay=0.0)
    history = train(network(), recipe)
    losses = [row.val_loss for row in history]
    assert len(history) < 30
    assert losses.index(min(losses)) == len(losses) - 3


def test_training_follows_the_teacher_when_it_has_all_the_weight() -> None:
    teacher = network(seed=1, dropout=0.0)
    train(teacher)
    student = network(seed=2)
    noise = Split(TRAIN.raw_N, np.random.default_rng(0).permutation(TRAIN.labels_N))
    wise = Teacher(teacher.eval(), temperature=2.0, weight=1.0)
    list(epochs(student, RECIPE, noise, VAL, BatchAugment(POLICY), 2, ALONE, teacher=wise))
    agreement = predict(student, VAL, GIVEN).argmax(1) == predict(teacher, VAL, GIVEN).argmax(1)
    assert agreement.float().mean() > 0.95, "labels are noise: only the teacher could have taught this"


def test_training_stops_in_one_line_when_the_loss_is_not_finite() -> None:
    with pytest.raises(
        StageFailed, match=r"training has diverged in step \d+ of epoch \d: lower lr \(1e\+30\)"
    ):
        train(network(), replace(RECIPE, lr=1e30, warmup_epochs=0))


def test_training_is_refused_when_the_batch_is_larger_than_the_data() -> None:
    with pytest.raises(BadInput, match=r"batch_size \(1024\)"):
        train(network(), replace(RECIPE, batch_size=1024))


def test_training_is_refused_when_the_ranks_do_not_divide_the_batch() -> None:
    with pytest.raises(BadInput, match="multiple of the 3 ranks"):
        next(epochs(network(), RECIPE, TRAIN, VAL, BatchAugment(POLICY), 2, World(0, 3, torch.device("cpu"))))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_scales_of_batch_norm_shrink_when_bn_sparsity_is_on(optimizer: str) -> None:
    scales = {}
    for strength in (0.0, 0.02):
        recipe = replace(RECIPE, epochs=6, optimizer=optimizer, bn_sparsity=strength)
        if optimizer == "adamw":
            recipe = replace(recipe, lr=0.005)
        model = network()
        assert train(model, recipe)[-1].val_accuracy > 0.9
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        scales[strength] = torch.cat([norm.weight.detach().abs() for norm in norms])
    assert scales[0.02].mean() < 0.8 * scales[0.0].mean()
    assert scales[0.02].quantile(0.1) < scales[0.0].quantile(0.1)


def test_scales_of_batch_norm_stay_as_they_are_when_they_do_not_learn_yet() -> None:
    model, recipe = network(), replace(RECIPE, ema_decay=0.0, freeze_epochs=1, bn_sparsity=0.02)
    running = epochs(model, recipe, TRAIN, VAL, BatchAugment(POLICY), 2, ALONE)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for shrunk in (False, True):
        next(running)
        assert all(bool((norm.weight != 1).any()) is shrunk for norm in norms)


def test_weight_decay_leaves_norms_and_biases_alone_when_it_is_large() -> None:
    recipe = replace(RECIPE, epochs=1, lr=1e-9, weight_decay=1e6, ema_decay=0.0, momentum=0.0)
    model = network()
    train(model, recipe)
    norms = [p for p in model.parameters() if p.ndim == 1]
    weights = [p for p in model.parameters() if p.ndim > 1]
    before = [p for p in network().parameters() if p.ndim > 1]
    assert all((p - p.round()).abs().max() < 1e-3 or p.shape == (2,) for p in norms)
    assert all((a / b).abs().median() < 0.999 for a, b in zip(weights, before, strict=True))


def test_learning_rate_warms_up_to_where_the_schedule_begins_when_asked() -> None:
    factors = {
        name: [
            lr_factor(Recipe(epochs=10, batch_size=1, lr=1, schedule=name, warmup_epochs=2), 10)(i)
            for i in range(100)
        ]
        for name in SCHEDULES
    }
    for name, factor in factors.items():
        begins = 1 / 25 if name == "one_cycle" else 1
        assert factor[:20] == pytest.approx([begins * (i + 1) / 21 for i in range(20)])
        assert factor[20] == pytest.approx(begins)
    assert factors["constant"][20:] == [1] * 80
    assert [factors["step"][i] for i in (59, 60, 79, 80)] == pytest.approx([1, 0.1, 0.1, 0.01])
    assert factors["cosine"][60] == pytest.approx(0.5)
    assert factors["exponential"][60] == pytest.approx(0.001**0.5)
    assert factors["one_cycle"].index(max(factors["one_cycle"])) == 44, "after three tenths of the rest"
    assert max(factors["one_cycle"]) == pytest.approx(1) and factors["one_cycle"][-1] < 0.001


def test_no_step_is_longer_than_the_norm_allows_when_gradients_are_clipped() -> None:
    recipe = replace(RECIPE, epochs=1, ema_decay=0.0, momentum=0.0, weight_decay=0.0, clip_norm=1e-4)
    before, after = network(), network()
    train(after, recipe)
    moved = torch.cat(
        [(a - b).flatten() for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    )
    steps = len(TRAIN) // recipe.batch_size
    assert 0 < moved.norm() <= steps * recipe.lr * recipe.clip_norm


def test_weights_are_those_of_whole_batches_when_gradients_are_accumulated() -> None:
    def plain() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 2))

    whole, parts = plain(), plain()
    for model, accumulate in ((whole, 1), (parts, 4)):
        train(model, replace(RECIPE, accumulate=accumulate))
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_training_is_refused_when_the_parts_do_not_divide_the_batch() -> None:
    with pytest.raises(BadInput, match=r"multiple of 1 ranks times accumulate \(5\)"):
        train(network(), replace(RECIPE, accumulate=5))


@pytest.mark.parametrize(
    "remedy", [{"class_weights": "balanced"}, {"sampling": "balanced"}, {"logit_adjustment": 1.0}]
)
def test_rare_class_is_found_more_often_when_classes_are_balanced(remedy: dict[str, Any]) -> None:
    rare = np.flatnonzero(TRAIN.labels_N == 1)[:8]
    rows = np.sort(np.concatenate([np.flatnonzero(TRAIN.labels_N == 0), rare]))
    recall = {}
    for name, options in {"plain": {}, "balanced": remedy}.items():
        values = {"sampling": "uniform", "epochs": 4, **options}
        tail = Split(TRAIN.raw_N[rows], TRAIN.labels_N[rows], values.pop("sampling"))
        model = network()
        list(epochs(model, replace(RECIPE, **values), tail, VAL, BatchAugment(POLICY), 2, ALONE))
        found_N = predict(model, VAL, GIVEN).argmax(1).numpy()[VAL.labels_N == 1]
        recall[name] = found_N.mean()
    assert recall["balanced"] > recall["plain"] + 0.2


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_weights_are_zero_and_not_only_small_when_l1_is_on(ema_decay: float) -> None:
    zeros = {}
    for strength in (0.0, 0.02):
        model = network()
        history = train(model, replace(RECIPE, epochs=6, l1=strength, ema_decay=ema_decay))
        assert history[-1].val_accuracy > 0.9
        zeros[strength] = sparsity(model)
        assert all((norm.weight != 0).all() for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))
    assert zeros[0.0] == 0 and zeros[0.02] > 0.3


def test_statistics_of_batch_norm_fit_the_averaged_weights_when_training_ends() -> None:
    model = network()
    train(model, RECIPE)
    again = copy.deepcopy(model)
    recalibrate(again, TRAIN, GIVEN)
    assert same(model, again)


OUT_OF_MEMORY = """
import resource
import numpy as np
import psutil
import torch
from tasks.core.data.dataset import Split
from tasks.core.distributed.world import World
from tasks.core.training.loop import epochs
from tasks.core.models.spec import Spec
from tasks.core.models.architectures import build
from tasks.core.training.optimizer import Recipe
from tasks.core.augmentation.batch import BatchAugment

images = np.zeros((2048, 48, 48, 1), np.uint8)
data = Split(images, np.arange(2048) % 2)
policy = {"image_shape": [48, 48, 1], "channel_mean": [0.3], "channel_std": [0.3], "operations": {}}
model = build(Spec("resnet_small", 32, 0.0, (48, 48, 1), 2))

def first_epoch(data, batch_size):
    recipe = Recipe(epochs=1, batch_size=batch_size, lr=0.1)
    next(epochs(model, recipe, data, data, BatchAugment(policy), 2, World(0, 1, torch.device("cpu"))))

# Threads and libraries that come with the first step find their memory; the limit is for what computes.
first_epoch(Split(images[:64], data.labels_N[:64]), 32)
limit = psutil.Process().memory_info().vms + 1_200_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
first_epoch(data, 2048)
"""


@pytest.mark.slow
def test_training_says_how_many_images_fit_when_memory_does_not_suffice() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY], capture_output=True, text=True, check=False, cwd=ROOT
    )
    found = re.search(
        r"StageFailed: out of memory with 2048 examples at once: (\d+) fit; multiply train[^\n]*\n$",
        done.stderr,
    )
    assert found, (done.returncode, done.stderr)
    assert int(found[1]) in (32, 64, 128, 256, 512, 1024)
