"""Groups of channels: which leave together, and which may not leave."""

import copy
from collections.abc import Callable
from typing import cast

import pytest
import torch
import torch_pruning
from torch import Tensor, nn

from tasks.core.common.errors import StageFailed
from tasks.core.data.inputs import ImageInput
from tasks.core.pruning.channels import cut, find_groups
from tasks.core.pruning.cutting import Pruner
from tests.unit.pruning.nets import ARCHS, GIVEN, Body, concatenating, conv, network, reasons, widths

TINY = ImageInput((4, 4, 1), [0.3], [0.3])

# ---- which channels leave together


@pytest.mark.parametrize("arch", [*ARCHS, pytest.param("convnext_tiny", marks=pytest.mark.slow)])
def test_cut_changes_no_logit_when_nothing_reads_the_channels(arch: str) -> None:
    model = network(arch)
    groups = find_groups(model, GIVEN, 8)
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
    groups = find_groups(model, TINY, 8)
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
    given = GIVEN if make is network else TINY
    groups = find_groups(model, given, 4)
    left = cut(model, groups, {group.name: [0, 3, 5, 6] for group in groups.prunable})
    again = find_groups(model, given, 4)
    assert widths(left) == widths(again)
    for one, other in zip(left.prunable, again.prunable, strict=True):
        mine = {(m.layer, m.axis): m.index_CM.tolist() for m in one.members}
        assert mine == {(m.layer, m.axis): m.index_CM.tolist() for m in other.members}


def test_pruned_network_is_that_of_torch_pruning_when_criterion_and_ratio_are_equal() -> None:
    mine, theirs = network(), network()
    Pruner(mine, GIVEN, 0.5, "l2", "uniform", 1, 8).step()
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
    groups = find_groups(network(arch), GIVEN, 8)
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
    groups = find_groups(model, GIVEN, 8)
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
    groups = find_groups(coupled(between), GIVEN, 8)
    assert reasons(groups)["stem"] == reason
    assert list(widths(groups)) == ["last"]


def test_find_groups_keeps_a_group_whole_when_it_is_too_narrow() -> None:
    model = coupled(nn.Identity())
    assert reasons(find_groups(model, GIVEN, 16))["stem"] == (
        "it has 16 channels, and widths are multiples of 16"
    )
    assert list(widths(find_groups(model, GIVEN, 8))) == ["stem", "last"]


def test_pruner_fails_in_one_line_when_nothing_can_be_pruned() -> None:
    with pytest.raises(StageFailed, match=r"^nothing can be pruned: stem: it has 16 .*; head: its outputs"):
        Pruner(coupled(nn.Identity()), GIVEN, 0.5, "l2", "uniform", 1, 16)


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
        find_groups(Body(forward, **layers), GIVEN, 8)
    assert "\n" not in str(failed.value)


def test_find_groups_names_the_layer_when_the_network_does_not_compute() -> None:
    model = coupled(conv(12, 16))
    with pytest.raises(StageFailed, match=r"^between: does not compute: .*12 channels"):
        find_groups(model, GIVEN, 8)


@pytest.mark.parametrize("training", [True, False])
def test_find_groups_leaves_the_network_as_it_was_when_done(training: bool) -> None:
    model = network().train(training)
    before = copy.deepcopy(model.state_dict())
    find_groups(model, GIVEN, 8)
    assert model.training is training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
