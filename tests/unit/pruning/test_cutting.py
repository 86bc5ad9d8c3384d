"""How many channels leave, and what is left of a network that knows something."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.augmentation.policy import of_images
from tasks.core.common.errors import BadInput
from tasks.core.config.params import AugmentParams
from tasks.core.data.dataset import Split
from tasks.core.data.inputs import ImageInput
from tasks.core.distributed.world import World
from tasks.core.models.architectures import build
from tasks.core.models.saved import parameter_count
from tasks.core.models.spec import Spec
from tasks.core.pruning.channels import find_groups
from tasks.core.pruning.cutting import Pruner, loss_gradients, prune_channels, score
from tasks.core.training.batchnorm import recalibrate
from tasks.core.training.loop import epochs, predict
from tasks.core.training.optimizer import Recipe
from tests.unit.pruning.nets import GIVEN, network, widths


def test_prune_channels_takes_each_ratio_from_its_group_when_they_differ() -> None:
    model = network()
    groups = find_groups(model, GIVEN, 8)
    ratios = {"stem.0": 0.25, "blocks.2.conv1": 0.9, "blocks.1.conv1": 0.0}
    left = prune_channels(model, groups, score(model, groups, "bn_scale"), ratios)
    assert widths(left) == {**widths(groups), "stem.0": 24, "blocks.2.conv1": 16}
    assert model.get_parameter("blocks.2.conv2.weight").shape[:2] == (128, 16)
    assert model.get_parameter("blocks.0.conv1.weight").shape[:2] == (32, 24)


def test_prune_channels_removes_the_lowest_scores_when_they_are_given() -> None:
    model = network()
    groups = find_groups(model, GIVEN, 8)
    before = model.get_parameter("blocks.0.bn1.weight").detach().clone()
    scores = {group.name: torch.arange(group.width).float().flip(0) for group in groups.prunable}
    prune_channels(model, groups, scores, {"blocks.0.conv1": 0.5})
    assert torch.equal(model.get_parameter("blocks.0.bn1.weight"), before[:16])


@pytest.mark.parametrize(
    ("ratio", "width"), [(0.1, 32), (0.25, 24), (0.3, 24), (0.375, 24), (0.4, 16), (0.5, 16), (0.99, 8)]
)
def test_width_is_the_nearest_multiple_when_a_ratio_is_no_multiple(ratio: float, width: int) -> None:
    model = network()
    groups = find_groups(model, GIVEN, 8)
    left = prune_channels(model, groups, score(model, groups, "l2"), {"stem.0": ratio})
    assert widths(left)["stem.0"] == width


def test_global_scope_takes_from_where_scores_are_lowest_when_they_differ() -> None:
    model = network()
    groups = find_groups(model, GIVEN, 8)
    low = {"blocks.1.conv1", "blocks.2.conv2"}
    scores = {g.name: torch.rand(g.width) + (g.name not in low) for g in groups.prunable}
    left = widths(prune_channels(model, groups, scores, 0.25, "global"))
    total = sum(widths(groups).values())
    assert {name for name, width in left.items() if width < widths(groups)[name]} == low
    assert sum(left.values()) == pytest.approx(0.75 * total, abs=8)


def test_global_scope_closes_no_layer_when_all_its_scores_are_lowest() -> None:
    model = network(width=80)
    groups = find_groups(model, GIVEN, 1)
    scores = {g.name: torch.rand(g.width) + (g.name != "stem.0") for g in groups.prunable}
    left = widths(prune_channels(model, groups, scores, 0.5, "global"))
    assert left["stem.0"] == 8, "a tenth of 80"


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_widths_are_the_same_when_reached_in_several_steps(steps: int) -> None:
    model = network(width=40)
    pruner = Pruner(model, GIVEN, 0.4, "l1", "uniform", steps, 8)
    seen = [parameter_count(model)]
    for _ in range(steps):
        pruner.step()
        seen.append(parameter_count(model))
    assert seen == sorted(seen, reverse=True)
    stages = ("stem.0", "blocks.0.conv1", "blocks.1.conv1", "blocks.2.conv2")
    assert [len(model.get_parameter(f"{name}.weight")) for name in stages] == [24, 24, 48, 96]


def test_pruner_names_the_groups_that_lost_nothing_when_the_ratio_is_small() -> None:
    pruner = Pruner(network(width=16), GIVEN, 0.2, "l2", "uniform", 1, 8)
    pruner.step()
    kept = {found.layer: found.reason for found in pruner.kept_whole()}
    assert kept["stem.0"] == "none of its 16 channels leaves at this ratio"
    assert "blocks.2.conv1" not in kept, "of 64 channels, 48 are left"


@pytest.mark.parametrize(
    ("ratios", "line"),
    [
        ({"stem": 0.5}, r"ratios: stem: no such group of channels \(there are: stem.0, blocks"),
        ({"stem.0": 1.0}, r"ratios: 1.0 is not a share"),
        (-0.1, r"ratios: -0.1 is not a share"),
        (float("nan"), r"ratios: nan is not a share"),
    ],
)
def test_prune_channels_is_refused_in_one_line_when_a_ratio_is_wrong(
    ratios: float | dict[str, float], line: str
) -> None:
    model = network()
    groups = find_groups(model, GIVEN, 8)
    with pytest.raises(BadInput, match=line):
        prune_channels(model, groups, score(model, groups, "l2"), ratios)


# ---- on a network that knows something

DIGITS = ImageInput((8, 8, 1), [0.3], [0.38])
POLICY = of_images(AugmentParams(flip_horizontal=False, crop=1), DIGITS)
Trained = tuple[nn.Module, Split, Split]


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A small network that reads scikit-learn's digits, its training and its validation images.

    Trained for pruning (Liu et al. 2017): without a penalty on batch norm's scales the criteria's lead over chance
    is about as large as its scatter from network to network, and from processor to processor.
    """
    images, labels = load_digits(return_X_y=True)
    images_NHWC = (images.reshape(-1, 8, 8, 1) * 15.9375).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(labels))
    train, val = (
        Split(images_NHWC[rows], labels[rows].astype(np.int64)) for rows in (order[:1200], order[1200:])
    )
    torch.manual_seed(0)
    model = build(Spec("resnet_small", 16, 0.0, (8, 8, 1), 10))
    recipe = Recipe(20, 64, 0.1, label_smoothing=0.1, bn_sparsity=0.01)
    history = list(
        epochs(model, recipe, train, val, BatchAugment(POLICY), 10, World(0, 1, torch.device("cpu")))
    )
    assert history[-1].val_accuracy > 0.95
    return model, train, val


def accuracy(model: nn.Module, split: Split) -> float:
    return float((predict(model, split, DIGITS).argmax(1).numpy() == split.labels_N).mean())


def left(trained: Trained, criterion: str, scope: str, seed: int = 0) -> float:
    """Accuracy when half the channels are gone and batch norm is recalibrated; nothing is trained."""
    dense, train, val = trained
    model = copy.deepcopy(dense)
    groups = find_groups(model, DIGITS, 1)
    gradients = loss_gradients(model, train, DIGITS) if criterion == "taylor" else None
    prune_channels(model, groups, score(model, groups, criterion, gradients, seed), 0.5, scope)
    recalibrate(model, train, DIGITS)
    return accuracy(model, val)


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor", "lamp"])
def test_criterion_beats_random_when_half_the_channels_leave_a_trained_network(
    trained: Trained, criterion: str, scope: str
) -> None:
    control = np.mean([left(trained, "random", scope, seed) for seed in range(5)])
    assert left(trained, criterion, scope) > control + 0.1


@pytest.mark.slow
def test_bn_scale_beats_random_when_half_of_every_layer_leaves_a_trained_network(trained: Trained) -> None:
    control = np.mean([left(trained, "random", "uniform", seed) for seed in range(5)])
    assert left(trained, "bn_scale", "uniform") > control + 0.1


def test_recalibrate_restores_accuracy_when_channels_have_left(trained: Trained) -> None:
    dense, train, val = trained
    model = copy.deepcopy(dense)
    Pruner(model, DIGITS, 0.4, "l2", "uniform", 1, 8).step()
    before = accuracy(model, val)
    recalibrate(model, train, DIGITS)
    assert accuracy(model, val) > before + 0.1
