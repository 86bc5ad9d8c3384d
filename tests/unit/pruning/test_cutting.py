"""Groups of channels, how they are scored, and what is left when they have gone."""

import copy
from collections.abc import Callable, Sequence
from typing import Literal, cast

import numpy as np
import pytest
import torch
import torch_pruning
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.core.augmentation.batch import BatchAugment, normalize
from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.data.dataset import Split
from tasks.core.distributed.world import World
from tasks.core.models.architectures import build
from tasks.core.models.saved import parameter_count
from tasks.core.models.spec import Spec
from tasks.core.pruning.channels import Groups, cut, find_groups
from tasks.core.pruning.criteria import CRITERIA, Part
from tasks.core.pruning.cutting import Pruner, loss_gradients, prune_channels, score
from tasks.core.training.batchnorm import recalibrate
from tasks.core.training.loop import epochs, predict
from tasks.core.training.optimizer import Recipe
from tests.networks import ARCHITECTURES

SHAPE = (28, 28, 1)
ARCHS = [
    pytest.param(arch, marks=[] if arch == "resnet_small" else pytest.mark.slow) for arch in ARCHITECTURES
]


def network(arch: str = "resnet_small", width: int = 32) -> nn.Module:
    """Untrained, with batch norm that differs from channel to channel, in eval mode."""
    torch.manual_seed(0)
    model = build(Spec(arch, width, 0.0, SHAPE, 5))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model.eval()


def widths(groups: Groups) -> dict[str, int]:
    return {group.name: group.width for group in groups.prunable}


def reasons(groups: Groups) -> dict[str, str]:
    return {kept.layer: kept.reason for kept in groups.kept_whole}


class Body(nn.Module):
    """A network from layers by name and a function that runs them."""

    def __init__(
        self, forward: Callable[["Body", Tensor], Tensor], **layers: nn.Module | nn.Parameter
    ) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.run(self, x_NCHW)


def conv(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)


def concatenating() -> nn.Module:
    """Two convolutions side by side, a norm over both, and a linear layer on the flattened map."""

    def forward(net: Body, x_NCHW: Tensor) -> Tensor:
        both = torch.cat([net.left(x_NCHW), net.right(x_NCHW)], 1)
        return cast(Tensor, net.head(F.relu(net.norm(both)).flatten(1)))

    torch.manual_seed(0)
    layers = {"left": conv(1, 16), "right": conv(1, 24), "norm": nn.BatchNorm2d(40)}
    return Body(forward, **layers, head=nn.Linear(40 * 16, 3)).eval()


# ---- which channels leave together


@pytest.mark.parametrize("arch", [*ARCHS, pytest.param("convnext_tiny", marks=pytest.mark.slow)])
def test_cut_changes_no_logit_when_nothing_reads_the_channels(arch: str) -> None:
    model = network(arch)
    groups = find_groups(model, SHAPE, 8)
    gone = {group.name: range(1, group.width, 2) for group in groups.prunable}
    with torch.no_grad():
        for group in groups.prunable:
            for member in group.members:
                if member.axis == "in":
                    layer = model.get_submodule(member.layer)
                    cast(Tensor, layer.weight)[:, member.index_CM[1::2].flatten()] = 0.0
    x_NCHW = torch.rand(2, 1, 28, 28)
    with torch.inference_mode():
        before = model(x_NCHW)
        cut(model, groups, gone)
        after = model(x_NCHW)
    assert before.std() > 1e-4, "the logits say nothing"
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-5)


def test_cut_changes_no_logit_when_maps_are_concatenated_and_flattened() -> None:
    model = concatenating()
    groups = find_groups(model, (4, 4, 1), 8)
    assert widths(groups) == {"left": 16, "right": 24}
    with torch.no_grad():
        weight_OCP = cast(Tensor, model.get_parameter("head.weight")).view(3, 40, 16)
        weight_OCP[:, [0, 5, 16 + 2, 16 + 23]] = 0.0
    x_NCHW = torch.rand(2, 1, 4, 4)
    with torch.inference_mode():
        before = model(x_NCHW)
        left = cut(model, groups, {"left": [0, 5], "right": [2, 23]})
        torch.testing.assert_close(model(x_NCHW), before)
    assert cast(nn.Linear, model.head).in_features == 36 * 16
    assert widths(left) == {"left": 14, "right": 22}


@pytest.mark.parametrize("make", [network, concatenating])
def test_groups_are_those_of_a_new_tracing_when_channels_have_left(make: Callable[[], nn.Module]) -> None:
    model = make()
    shape = SHAPE if make is network else (4, 4, 1)
    groups = find_groups(model, shape, 4)
    left = cut(model, groups, {group.name: [0, 3, 5, 6] for group in groups.prunable})
    again = find_groups(model, shape, 4)
    assert widths(left) == widths(again)
    for one, other in zip(left.prunable, again.prunable, strict=True):
        mine = {(m.layer, m.axis): m.index_CM.tolist() for m in one.members}
        assert mine == {(m.layer, m.axis): m.index_CM.tolist() for m in other.members}


def test_pruned_network_is_that_of_torch_pruning_when_criterion_and_ratio_are_equal() -> None:
    mine, theirs = network(), network()
    Pruner(mine, SHAPE, 0.5, "l2", "uniform", 1, 8).step()
    torch_pruning.pruner.BasePruner(
        theirs,
        torch.zeros(1, 1, 28, 28),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        round_to=8,
        ignored_layers=[theirs.head],
    ).step()
    for (name, one), other in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


# ---- which may not leave


@pytest.mark.parametrize(
    ("arch", "head"),
    [
        ("resnet_small", "head"),
        pytest.param("mobilenet_v2", "classifier.1", marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_small", "classifier.3", marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", "classifier.1", marks=pytest.mark.slow),
        pytest.param("resnet18", "fc", marks=pytest.mark.slow),
        pytest.param("timm/mobilenetv3_small_100", "classifier", marks=pytest.mark.slow),
    ],
)
def test_find_groups_finds_the_layer_that_makes_the_classes_when_traced(arch: str, head: str) -> None:
    groups = find_groups(network(arch), SHAPE, 8)
    assert groups.outputs == (head,)
    others = [reason for layer, reason in reasons(groups).items() if layer != head]
    assert reasons(groups)[head] == "its outputs are the classes"
    assert all("channels, and widths are multiples of 8" in reason for reason in others)
    assert len(others) <= 4


def test_find_groups_finds_both_layers_when_the_classes_are_their_sum() -> None:
    def forward(net: Body, x_NCHW: Tensor) -> Tensor:
        y = net.stem(x_NCHW)
        return cast(Tensor, net.one(y).mean((2, 3)) + net.two(y.mean((2, 3))))

    # The classes' layers come first, and one of them is a convolution: no order, no type tells them.
    model = Body(forward, one=conv(16, 5), two=nn.Linear(16, 5), stem=conv(1, 16))
    groups = find_groups(model, SHAPE, 8)
    assert groups.outputs == ("one", "two")
    assert list(widths(groups)) == ["stem"]


def coupled(between: nn.Module | nn.Parameter) -> nn.Module:
    def forward(net: Body, x_NCHW: Tensor) -> Tensor:
        y = net.stem(x_NCHW)
        y = net.between(y) if isinstance(net.between, nn.Module) else y * net.between
        return cast(Tensor, net.head(net.last(y).mean((2, 3))))

    return Body(forward, stem=conv(1, 16), between=between, last=conv(16, 16), head=nn.Linear(16, 5))


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (nn.Parameter(torch.ones(16, 1, 1)), "it is coupled with between, a parameter outside any layer"),
        (nn.GroupNorm(4, 16), "it is coupled with between: the width of GroupNorm cannot change"),
        (
            nn.ConvTranspose2d(16, 16, 1),
            "it is coupled with between: the width of ConvTranspose2d cannot change",
        ),
        (conv(16, 16, groups=4), "it is coupled with between, a convolution in 4 groups"),
    ],
)
def test_find_groups_keeps_a_group_whole_when_it_holds_what_cannot_be_narrowed(
    between: nn.Module | nn.Parameter, reason: str
) -> None:
    groups = find_groups(coupled(between), SHAPE, 8)
    assert reasons(groups)["stem"] == reason
    assert list(widths(groups)) == ["last"]


def test_find_groups_keeps_a_group_whole_when_it_is_too_narrow() -> None:
    model = coupled(nn.Identity())
    assert reasons(find_groups(model, SHAPE, 16))["stem"] == (
        "it has 16 channels, and widths are multiples of 16"
    )
    assert list(widths(find_groups(model, SHAPE, 8))) == ["stem", "last"]


def test_pruner_fails_in_one_line_when_nothing_can_be_pruned() -> None:
    with pytest.raises(StageFailed, match=r"^nothing can be pruned: stem: it has 16 .*; head: its outputs"):
        Pruner(coupled(nn.Identity()), SHAPE, 0.5, "l2", "uniform", 1, 16)


def branching(net: Body, x_NCHW: Tensor) -> Tensor:
    return cast(Tensor, net.head((net.stem if x_NCHW.sum() == 0 else net.other)(x_NCHW).mean((2, 3))))


def detaching(net: Body, x_NCHW: Tensor) -> Tensor:
    return cast(Tensor, net.head(net.stem(x_NCHW).detach().mean((2, 3))))


def counting(net: Body, x_NCHW: Tensor) -> Tensor:
    return cast(Tensor, net.head(net.stem(x_NCHW).reshape(-1, 16, 28 * 28).mean(2)))


@pytest.mark.parametrize(
    ("forward", "line"),
    [
        (branching, r"^other \(Conv2d\): tracing does not pass it"),
        (detaching, r"^stem \(Conv2d\): tracing does not pass it"),
        (counting, r"^\w+: no longer computes when channels are removed: .*invalid for input"),
    ],
)
def test_find_groups_fails_in_one_line_when_tracing_does_not_show_all(
    forward: Callable[[Body, Tensor], Tensor], line: str
) -> None:
    layers = {"stem": conv(1, 16), "head": nn.Linear(16, 5)}
    if forward is branching:
        layers["other"] = conv(1, 16)
    with pytest.raises(StageFailed, match=line) as failed:
        find_groups(Body(forward, **layers), SHAPE, 8)
    assert "\n" not in str(failed.value)


def test_find_groups_names_the_layer_when_the_network_does_not_compute() -> None:
    model = coupled(conv(12, 16))
    with pytest.raises(StageFailed, match=r"^between: does not compute: .*12 channels"):
        find_groups(model, SHAPE, 8)


@pytest.mark.parametrize("training", [True, False])
def test_find_groups_leaves_the_network_as_it_was_when_done(training: bool) -> None:
    model = network().train(training)
    before = copy.deepcopy(model.state_dict())
    find_groups(model, SHAPE, 8)
    assert model.training is training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# ---- criteria


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
    found = find_groups(model, SHAPE, 8).prunable
    scores = score(model, find_groups(model, SHAPE, 8), criterion)
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
    groups = find_groups(model, SHAPE, 8)
    state = torch.get_rng_state()
    one, same, other = (score(model, groups, "random", seed=seed)["stem.0"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state()), "training would draw other numbers"


def test_taylor_scores_least_when_the_loss_does_not_depend_on_a_channel(split: Split) -> None:
    model = network()
    with torch.no_grad():
        model.get_parameter("blocks.0.conv2.weight")[:, 7] = 0.0
    groups = find_groups(model, SHAPE, 8)
    gradients = loss_gradients(model, split, [0.3], [0.3])
    scores_C = score(model, groups, "taylor", gradients)["blocks.0.conv1"]
    assert scores_C[7] == 0
    assert (scores_C > 0).sum() == 31


def test_taylor_foretells_the_loss_when_a_channel_is_silenced_a_little(split: Split) -> None:
    model = network().double()
    few = Split(split.images_NHWC[:32], split.labels_N[:32])
    x_NCHW = normalize(torch.tensor(few.images_NHWC), [0.3], [0.3]).double()
    labels_N = torch.tensor(few.labels_N)
    names, parameters = zip(*model.named_parameters(), strict=True)
    loss = F.cross_entropy(model(x_NCHW), labels_N)
    gradients = dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))
    groups = find_groups(model.float(), SHAPE, 8)
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
    few = Split(split.images_NHWC[:32], split.labels_N[:32])
    (measured,) = loss_gradients(model.train(), few, [0.3], [0.3])
    assert model.training
    x_NCHW = normalize(torch.tensor(few.images_NHWC), [0.3], [0.3])
    F.cross_entropy(model.eval()(x_NCHW), torch.tensor(few.labels_N)).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(measured[name], parameter.grad, rtol=1e-3, atol=1e-6)


# ---- how many leave


def test_prune_channels_takes_each_ratio_from_its_group_when_they_differ() -> None:
    model = network()
    groups = find_groups(model, SHAPE, 8)
    ratios = {"stem.0": 0.25, "blocks.2.conv1": 0.9, "blocks.1.conv1": 0.0}
    left = prune_channels(model, groups, score(model, groups, "bn_scale"), ratios)
    assert widths(left) == {**widths(groups), "stem.0": 24, "blocks.2.conv1": 16}
    assert model.get_parameter("blocks.2.conv2.weight").shape[:2] == (128, 16)
    assert model.get_parameter("blocks.0.conv1.weight").shape[:2] == (32, 24)


def test_prune_channels_removes_the_lowest_scores_when_they_are_given() -> None:
    model = network()
    groups = find_groups(model, SHAPE, 8)
    before = model.get_parameter("blocks.0.bn1.weight").detach().clone()
    scores = {group.name: torch.arange(group.width).float().flip(0) for group in groups.prunable}
    prune_channels(model, groups, scores, {"blocks.0.conv1": 0.5})
    assert torch.equal(model.get_parameter("blocks.0.bn1.weight"), before[:16])


@pytest.mark.parametrize(
    ("ratio", "width"), [(0.1, 32), (0.25, 24), (0.3, 24), (0.375, 24), (0.4, 16), (0.5, 16), (0.99, 8)]
)
def test_width_is_the_nearest_multiple_when_a_ratio_is_no_multiple(ratio: float, width: int) -> None:
    model = network()
    groups = find_groups(model, SHAPE, 8)
    left = prune_channels(model, groups, score(model, groups, "l2"), {"stem.0": ratio})
    assert widths(left)["stem.0"] == width


def test_global_scope_takes_from_where_scores_are_lowest_when_they_differ() -> None:
    model = network()
    groups = find_groups(model, SHAPE, 8)
    low = {"blocks.1.conv1", "blocks.2.conv2"}
    scores = {g.name: torch.rand(g.width) + (g.name not in low) for g in groups.prunable}
    left = widths(prune_channels(model, groups, scores, 0.25, "global"))
    total = sum(widths(groups).values())
    assert {name for name, width in left.items() if width < widths(groups)[name]} == low
    assert sum(left.values()) == pytest.approx(0.75 * total, abs=8)


def test_global_scope_closes_no_layer_when_all_its_scores_are_lowest() -> None:
    model = network(width=80)
    groups = find_groups(model, SHAPE, 1)
    scores = {g.name: torch.rand(g.width) + (g.name != "stem.0") for g in groups.prunable}
    left = widths(prune_channels(model, groups, scores, 0.5, "global"))
    assert left["stem.0"] == 8, "a tenth of 80"


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_widths_are_the_same_when_reached_in_several_steps(steps: int) -> None:
    model = network(width=40)
    pruner = Pruner(model, SHAPE, 0.4, "l1", "uniform", steps, 8)
    seen = [parameter_count(model)]
    for _ in range(steps):
        pruner.step()
        seen.append(parameter_count(model))
    assert seen == sorted(seen, reverse=True)
    stages = ("stem.0", "blocks.0.conv1", "blocks.1.conv1", "blocks.2.conv2")
    assert [len(model.get_parameter(f"{name}.weight")) for name in stages] == [24, 24, 48, 96]


def test_pruner_names_the_groups_that_lost_nothing_when_the_ratio_is_small() -> None:
    pruner = Pruner(network(width=16), SHAPE, 0.2, "l2", "uniform", 1, 8)
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
    groups = find_groups(model, SHAPE, 8)
    with pytest.raises(BadInput, match=line):
        prune_channels(model, groups, score(model, groups, "l2"), ratios)


# ---- recalibration


@pytest.fixture
def split() -> Split:
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (600, *SHAPE), dtype=np.uint8)
    return Split(images, draws.integers(0, 5, 600))


def test_recalibrate_gives_the_moments_of_the_data_when_there_is_one_batch(split: Split) -> None:
    model = network().train()
    few = Split(split.images_NHWC[:300], split.labels_N[:300])
    recalibrate(model, few, [0.3], [0.3])
    stem, norm = cast(nn.Sequential, model.stem)[:2]
    with torch.no_grad():
        y_NCHW = stem(normalize(torch.tensor(few.images_NHWC), [0.3], [0.3]))
    torch.testing.assert_close(norm.running_mean, y_NCHW.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norm.running_var, y_NCHW.var((0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert norm.momentum == 0.1
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(("sampling", "white"), [("uniform", 0.05), ("balanced", 0.5)])
def test_recalibrate_sees_the_classes_that_training_sees_when_one_is_rare(
    sampling: str, white: float
) -> None:
    labels_N = (np.arange(4000) % 20 == 0).astype(np.int64)
    images_NHWC = np.broadcast_to(255 * labels_N.astype(np.uint8)[:, None, None, None], (4000, 2, 2, 1))
    norm = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    nn.init.ones_(norm[0].weight), nn.init.zeros_(norm[0].bias)
    recalibrate(norm, Split(images_NHWC, labels_N, sampling), [0.0], [1.0])
    assert norm[1].running_mean.item() == pytest.approx(white, abs=0.04)


def test_recalibrate_touches_nothing_but_statistics_when_it_runs(split: Split) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    recalibrate(model, split, [0.3], [0.3])
    changed = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    assert changed == {name for name in before if "running" in name or "num_batches" in name}
    loss = F.cross_entropy(model.train()(torch.rand(4, 1, 28, 28)), torch.arange(4))
    loss.backward()  # type: ignore[no-untyped-call]  # what was computed in inference mode must not be in the way


# ---- on a network that knows something

POLICY = {
    "image_shape": [8, 8, 1], "channel_mean": [0.3], "channel_std": [0.38],
    "operations": {"crop": {"pixels": 1}}, "left_out": {}, "seed": 0,
}  # fmt: skip
Trained = tuple[nn.Module, Split, Split]


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A small network that reads scikit-learn's digits, its training and its validation images."""
    images, labels = load_digits(return_X_y=True)
    images_NHWC = (images.reshape(-1, 8, 8, 1) * 15.9375).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(labels))
    train, val = (
        Split(images_NHWC[rows], labels[rows].astype(np.int64)) for rows in (order[:1200], order[1200:])
    )
    torch.manual_seed(0)
    model = build(Spec("resnet_small", 16, 0.0, (8, 8, 1), 10))
    recipe = Recipe(20, 64, 0.1, label_smoothing=0.1)
    history = list(
        epochs(model, recipe, train, val, BatchAugment(POLICY), 10, World(0, 1, torch.device("cpu")))
    )
    assert history[-1].val_accuracy > 0.95
    return model, train, val


def accuracy(model: nn.Module, split: Split) -> float:
    return float((predict(model, split, [0.3], [0.38]).argmax(1).numpy() == split.labels_N).mean())


def left(trained: Trained, criterion: str, scope: str, seed: int = 0) -> float:
    """Accuracy when half the channels are gone and batch norm is recalibrated; nothing is trained."""
    dense, train, val = trained
    model = copy.deepcopy(dense)
    groups = find_groups(model, (8, 8, 1), 1)
    gradients = loss_gradients(model, train, [0.3], [0.38]) if criterion == "taylor" else None
    prune_channels(model, groups, score(model, groups, criterion, gradients, seed), 0.5, scope)
    recalibrate(model, train, [0.3], [0.38])
    return accuracy(model, val)


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor", "lamp"])
def test_criterion_beats_random_when_half_the_channels_leave_a_trained_network(
    trained: Trained, criterion: str, scope: str
) -> None:
    control = np.mean([left(trained, "random", scope, seed) for seed in range(5)])
    assert left(trained, criterion, scope) > control + 0.1


def test_bn_scale_beats_random_when_half_of_every_layer_leaves_a_trained_network(trained: Trained) -> None:
    control = np.mean([left(trained, "random", "uniform", seed) for seed in range(5)])
    assert left(trained, "bn_scale", "uniform") > control + 0.1


def test_recalibrate_restores_accuracy_when_channels_have_left(trained: Trained) -> None:
    dense, train, val = trained
    model = copy.deepcopy(dense)
    Pruner(model, (8, 8, 1), 0.4, "l2", "uniform", 1, 8).step()
    before = accuracy(model, val)
    recalibrate(model, train, [0.3], [0.38])
    assert accuracy(model, val) > before + 0.1
