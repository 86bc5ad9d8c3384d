"""Single weights that are zero: which ones, and that they stay so."""

from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.data.inputs import ImageInput
from tasks.core.distributed.world import World
from tasks.core.models.architectures import build
from tasks.core.models.saved import sparsity
from tasks.core.models.spec import Spec
from tasks.core.pruning.sparsity import Sparsifier, hold, sparsify, sparsify_2of4
from tasks.core.training.loop import epochs
from tests.unit.training.test_loop import POLICY, RECIPE, TRAIN, VAL

SHAPE = (16, 16, 1)
GIVEN = ImageInput(SHAPE, [0.3], [0.3])


def network(arch: str = "resnet_small") -> nn.Module:
    torch.manual_seed(0)
    return build(Spec(arch, 8, 0.0, SHAPE, 2))


def weights(model: nn.Module) -> dict[str, Tensor]:
    kinds = (nn.Conv2d, nn.Linear)
    return {
        f"{name}.weight": layer.weight.detach()
        for name, layer in model.named_modules()
        if isinstance(layer, kinds)
    }


@pytest.mark.parametrize("share", [0.1, 0.5, 0.83])
def test_sparsify_sets_the_smallest_of_all_weights_to_zero_when_given_a_share(share: float) -> None:
    model = network()
    before = {name: weight.clone() for name, weight in weights(model).items()}
    masks = sparsify(model, share)
    count = sum(weight.numel() for weight in before.values())
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(share * count)
    assert sparsity(model) == pytest.approx(share, abs=1 / count)
    gone = torch.cat([before[name][~mask].abs() for name, mask in masks.items()])
    kept = torch.cat([before[name][mask].abs() for name, mask in masks.items()])
    assert gone.max() <= kept.min()
    for name, weight in weights(model).items():
        assert torch.equal(weight, before[name] * masks[name])


def test_sparsify_2of4_keeps_the_two_largest_of_four_inputs_when_applied() -> None:
    model = network()
    before = {name: weight.clone() for name, weight in weights(model).items()}
    masks, dense = sparsify_2of4(model, ["head"])
    assert {kept.layer: kept.reason for kept in dense} == {
        "stem.0": "its inputs (1) are no multiple of 4",
        "head": "its outputs are the classes",
    }
    for name, weight in weights(model).items():
        if name not in masks:
            assert torch.equal(weight, before[name])
            continue
        fours = before[name].movedim(1, -1).reshape(-1, 4)
        after = weight.movedim(1, -1).reshape(-1, 4)
        second_largest = fours.abs().sort(1).values[:, 2:3]
        assert torch.equal(after, fours * (fours.abs() >= second_largest))
    kept_dense = sum(before[f"{kept.layer}.weight"].numel() for kept in dense)
    total = sum(weight.numel() for weight in before.values())
    assert sparsity(model) == pytest.approx((total - kept_dense) / 2 / total)


def test_sparsify_2of4_takes_the_first_of_equal_weights_when_written_by_hand() -> None:
    layer = nn.Linear(8, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.0, 0.1, -0.2, 0.0]])
    sparsify_2of4(nn.Sequential(layer), [])
    assert layer.weight.tolist() == [[0, -4, 3, 0, 0, pytest.approx(0.1), pytest.approx(-0.2), 0]]


@pytest.mark.slow
def test_sparsify_2of4_leaves_depthwise_convolutions_dense_when_there_are_some() -> None:
    model = network("mobilenet_v2")
    pattern = Sparsifier(model, GIVEN, "2of4", 1)
    pattern.step()
    dense = {kept.layer for kept in pattern.kept_whole()}
    depthwise = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1}
    assert len(depthwise) == 17
    assert dense == {*depthwise, "classifier.1", "features.0.0"}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("amount", [0.7, "2of4"])
def test_zeros_stay_exactly_zero_when_the_others_learn(
    optimizer: str, ema_decay: float, amount: float | str
) -> None:
    model = network()
    method = Sparsifier(model, GIVEN, amount, 1)
    method.step()
    before = {name: weight.clone() for name, weight in weights(model).items()}
    recipe = replace(RECIPE, epochs=2, optimizer=optimizer, ema_decay=ema_decay, weight_decay=0.01)
    recipe = replace(recipe, lr=0.05 if optimizer == "sgd" else 0.005)
    list(epochs(model, recipe, TRAIN, VAL, BatchAugment(POLICY), 2, World(0, 1, torch.device("cpu"))))
    for name, weight in weights(model).items():
        assert torch.equal(weight == 0, before[name] == 0), name
        assert not torch.equal(weight, before[name]), f"{name} did not learn"


def test_weights_leave_zero_when_nobody_holds_them() -> None:
    model = network()
    masks = sparsify(model, 0.7)
    running = epochs(
        model,
        replace(RECIPE, epochs=1),
        TRAIN,
        VAL,
        BatchAugment(POLICY),
        2,
        World(0, 1, torch.device("cpu")),
    )
    list(running)
    assert sparsity(model) < 0.1
    hold(model, masks)
    model.zero_grad()
    cast(Tensor, model(torch.rand(4, 1, 16, 16))).sum().backward()  # type: ignore[no-untyped-call]
    for name, mask in masks.items():
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        assert not gradient[~mask].any()


def test_zeros_grow_in_equal_parts_when_there_are_steps() -> None:
    model = network()
    method = Sparsifier(model, GIVEN, 0.9, 3)
    zeros = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in weights(model).items()}
    for share in (0.3, 0.6, 0.9):
        method.step()
        assert sparsity(model) == pytest.approx(share, abs=1e-3)
        assert all(bool((weights(model)[name][zero] == 0).all()) for name, zero in zeros.items())
        zeros = {name: weight == 0 for name, weight in weights(model).items()}
    assert method.kept_whole() == []
