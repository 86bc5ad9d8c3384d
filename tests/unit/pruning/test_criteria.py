"""How channels are scored."""

import copy
from collections.abc import Callable, Sequence
from typing import Literal, cast

import numpy as np
import pytest
import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.core.data.dataset import Split
from tasks.core.pruning.channels import find_groups
from tasks.core.pruning.criteria import CRITERIA, Part
from tasks.core.pruning.cutting import loss_gradients, score
from tests.unit.pruning.nets import GIVEN, SHAPE, conv, network


@pytest.fixture
def split() -> Split:
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (600, *SHAPE), dtype=np.uint8)
    return Split(images, draws.integers(0, 5, 600))


def part(
    layer: nn.Module, axis: Literal["out", "in"], weights: list[list[float]], gradients: list[list[float]]
) -> Part:
    return Part(layer, axis, torch.tensor(weights).float(), torch.tensor(gradients).float())


FILTERS = part(conv(1, 3), "out", [[1, -2], [0, 4], [3, 3]], [[1, 1], [2, 0], [0, 1]])
SCALES = part(nn.BatchNorm2d(3), "out", [[-0.5], [2.0], [0.25]], [[2], [0], [4]])
READERS = part(conv(3, 2), "in", [[1, -2], [0, 4], [3, 3]], [[1, 1], [2, 0], [-1, 2]])


@pytest.mark.parametrize(
    ("criterion", "parts", "scores"),
    [
        ("l1", [FILTERS], [3 * 3 / 13, 4 * 3 / 13, 6 * 3 / 13]),
        ("l1", [FILTERS, SCALES], [3.5 * 3 / 15.75, 6 * 3 / 15.75, 6.25 * 3 / 15.75]),
        ("l2", [FILTERS], [5 * 3 / 39, 16 * 3 / 39, 18 * 3 / 39]),
        ("bn_scale", [FILTERS, SCALES], [0.5, 2.0, 0.25]),
        ("bn_scale", [FILTERS], [5 * 3 / 39, 16 * 3 / 39, 18 * 3 / 39]),
        ("taylor", [FILTERS, SCALES, READERS], [(1 - 2) ** 2, 0, (-3 + 6) ** 2]),
        ("taylor", [FILTERS, READERS, READERS], [4, 0, 36]),
        ("lamp", [FILTERS], [5 / 39, 16 / 34, 1]),
    ],
)
def test_criterion_scores_as_its_paper_says_when_the_layer_is_made_by_hand(
    criterion: str, parts: Sequence[Part], scores: list[float]
) -> None:
    torch.testing.assert_close(CRITERIA[criterion](parts), torch.tensor(scores).float())


@pytest.mark.parametrize(
    ("criterion", "importance"),
    [
        ("l1", torch_pruning.importance.GroupMagnitudeImportance(p=1)),
        ("l2", torch_pruning.importance.GroupMagnitudeImportance(p=2)),
        ("bn_scale", torch_pruning.importance.BNScaleImportance(normalizer=None)),
        ("lamp", torch_pruning.importance.LAMPImportance()),
    ],
)
def test_criterion_scores_as_that_of_torch_pruning_when_groups_are_traced(
    criterion: str, importance: Callable[[object], Tensor]
) -> None:
    model = network()
    graph = torch_pruning.DependencyGraph().build_dependency(model, torch.zeros(1, 1, 28, 28))
    theirs = {dep.target.module: traced for traced in graph.get_all_groups() for dep, _ in traced[:1]}
    found = find_groups(model, GIVEN, 8).prunable
    scores = score(model, find_groups(model, GIVEN, 8), criterion)
    compared = 0
    for group in found:
        for layer in map(model.get_submodule, group.layers):
            if layer in theirs and len(theirs[layer][0].idxs) == group.width:
                torch.testing.assert_close(scores[group.name], importance(theirs[layer]))
                compared += 1
                break
    assert compared == len(found) == 6


def test_random_differs_exactly_when_the_seed_does() -> None:
    model = network()
    groups = find_groups(model, GIVEN, 8)
    state = torch.get_rng_state()
    one, same, other = (score(model, groups, "random", seed=seed)["stem.0"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state()), "training would draw other numbers"


def test_taylor_scores_least_when_the_loss_does_not_depend_on_a_channel(split: Split) -> None:
    model = network()
    with torch.no_grad():
        model.get_parameter("blocks.0.conv2.weight")[:, 7] = 0.0
    groups = find_groups(model, GIVEN, 8)
    gradients = loss_gradients(model, split, GIVEN)
    scores_C = score(model, groups, "taylor", gradients)["blocks.0.conv1"]
    assert scores_C[7] == 0
    assert (scores_C > 0).sum() == 31


def test_taylor_foretells_the_loss_when_a_channel_is_silenced_a_little(split: Split) -> None:
    model = network().double()
    few = Split(split.raw_N[:32], split.labels_N[:32])
    x_NCHW = GIVEN.tensor(torch.tensor(few.raw_N)).double()
    labels_N = torch.tensor(few.labels_N)
    names, parameters = zip(*model.named_parameters(), strict=True)
    loss = F.cross_entropy(model(x_NCHW), labels_N)
    gradients = dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))
    groups = find_groups(model.float(), GIVEN, 8)
    model.double()
    scores = score(model, groups, "taylor", [gradients])
    for group in groups.prunable:
        silenced = copy.deepcopy(model)
        with torch.no_grad():
            for member in group.members:
                if member.axis == "in":
                    cast(Tensor, silenced.get_submodule(member.layer).weight)[:, member.index_CM[3]] *= (
                        1 - 1e-4
                    )
            change = (F.cross_entropy(silenced(x_NCHW), labels_N) - loss) / 1e-4
        assert change.item() ** 2 == pytest.approx(scores[group.name][3].item(), rel=0.02), group.name


def test_gradients_are_those_of_autograd_when_there_is_one_batch(split: Split) -> None:
    model = network()
    few = Split(split.raw_N[:32], split.labels_N[:32])
    (measured,) = loss_gradients(model.train(), few, GIVEN)
    assert model.training
    x_NCHW = GIVEN.tensor(torch.tensor(few.raw_N))
    F.cross_entropy(model.eval()(x_NCHW), torch.tensor(few.labels_N)).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(measured[name], parameter.grad, rtol=1e-3, atol=1e-6)
