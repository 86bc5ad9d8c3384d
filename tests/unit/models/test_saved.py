"""Every architecture builds, survives pruning, and is saved and loaded to the bit."""

import copy
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tasks.core.common.errors import BadInput
from tasks.core.common.files import read_json, write_json
from tasks.core.data.dataset import Split
from tasks.core.models.architectures import build
from tasks.core.models.saved import (
    load_model,
    mac_count,
    parameter_count,
    rectify,
    remove_blocks,
    removed_blocks,
    save_model,
    smooth_activations,
)
from tasks.core.models.spec import Spec
from tasks.core.pruning.criteria import CRITERIA
from tasks.core.pruning.cutting import Pruner, loss_gradients
from tests.networks import ARCHITECTURES, GIVEN


def spec(arch: str = "resnet_small") -> Spec:
    return Spec(arch, 16, 0.1, (28, 28, 1), 5)


def pruned(model: nn.Module, criterion: str = "l2", scope: str = "uniform") -> nn.Module:
    model = copy.deepcopy(model)
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (64, 28, 28, 1), dtype=np.uint8)
    some = Split(images, draws.integers(0, 5, 64))
    gradients = partial(loss_gradients, model, some, GIVEN)
    Pruner(model, GIVEN, 0.5, criterion, scope, 1, 8, gradients=gradients).step()
    return model


@pytest.mark.parametrize(
    "arch",
    [pytest.param(a, marks=[] if a == "resnet_small" else pytest.mark.slow) for a in ARCHITECTURES],
)
def test_model_is_equal_to_the_bit_when_pruned_saved_and_loaded(arch: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense = build(spec(arch)).eval()
    smaller = pruned(dense).eval()
    assert parameter_count(smaller) < 0.5 * parameter_count(dense)
    assert mac_count(smaller, GIVEN) < 0.6 * mac_count(dense, GIVEN)
    changed = [
        (layer.out_channels, before.out_channels)
        for layer, before in zip(smaller.modules(), dense.modules(), strict=True)
        if isinstance(layer, nn.Conv2d) and isinstance(before, nn.Conv2d)
    ]
    assert all(width % 8 == 0 or width == before for width, before in changed)
    save_model(smaller, spec(arch), tmp_path)
    loaded, read = load_model(tmp_path)
    x_NCHW = torch.rand(3, 1, 28, 28)
    assert read == spec(arch)
    with torch.inference_mode():
        assert torch.equal(smaller(x_NCHW), loaded(x_NCHW))


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "efficientnet_b0", "convnext_tiny"])
@pytest.mark.slow
def test_model_is_equal_to_the_bit_when_its_activations_are_rectified_and_it_is_saved_and_loaded(
    arch: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = build(spec(arch)).eval()
    assert smooth_activations(model)
    x_NCHW = torch.rand(3, 1, 28, 28)
    with torch.inference_mode():
        whole = model(x_NCHW)
    rectify(model)
    assert not smooth_activations(model)
    save_model(model, spec(arch), tmp_path)
    loaded, _ = load_model(tmp_path)
    with torch.inference_mode():
        assert torch.equal(model(x_NCHW), loaded(x_NCHW))
        assert not torch.equal(model(x_NCHW), whole)


def test_model_is_loaded_when_an_earlier_version_saved_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(spec("resnet_small")).eval()
    save_model(model, spec("resnet_small"), tmp_path)
    content = read_json(tmp_path / "model.json")
    del content["rectified"]
    write_json(tmp_path / "model.json", content)
    loaded, _ = load_model(tmp_path)
    x_NCHW = torch.rand(3, 1, 28, 28)
    with torch.inference_mode():
        assert torch.equal(loaded(x_NCHW), model(x_NCHW))


def test_model_is_equal_to_the_bit_when_blocks_are_removed_and_it_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(spec("mobilenet_v3_small")).eval()
    x_NCHW = torch.rand(3, 1, 28, 28)
    with torch.inference_mode():
        whole = model(x_NCHW)
    # The squeeze-and-excitation of the block is inside it, and goes with it.
    blocks = ["features.5", "features.5.block.2", "features.4.block.2"]
    remove_blocks(model, blocks)
    assert removed_blocks(model) == ["features.4.block.2", "features.5"]
    save_model(model, spec("mobilenet_v3_small"), tmp_path)
    loaded, _ = load_model(tmp_path)
    with torch.inference_mode():
        assert torch.equal(model(x_NCHW), loaded(x_NCHW))
        assert not torch.equal(model(x_NCHW), whole)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_pruner_leaves_multiples_of_eight_and_the_classes_when_it_removes_channels(
    criterion: str, scope: str
) -> None:
    torch.manual_seed(0)
    dense = build(Spec("resnet_small", 32, 0.0, (28, 28, 1), 5))
    for layer in dense.modules():
        if isinstance(layer, nn.BatchNorm2d):  # untrained, all scales are 1 and none is the smallest
            nn.init.uniform_(layer.weight)
    model = pruned(dense, criterion, scope)
    widths = [layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert all(width % 8 == 0 and width > 0 for width in widths)
    assert sum(widths) < 500
    assert [layer.out_features for layer in model.modules() if isinstance(layer, nn.Linear)] == [5]


def test_pruner_keeps_the_largest_filters_when_the_criterion_is_magnitude() -> None:
    model = build(spec())
    block = model.blocks[0]  # type: ignore[index,union-attr]
    with torch.no_grad():  # conv1's outputs depend on nothing but conv1, bn1 and conv2's inputs
        block.conv1.weight[8:] *= 0.01
        block.conv2.weight[:, 8:] *= 0.01
        block.bn1.weight[8:] *= 0.01
        kept = block.conv1.weight[:8, 0].clone()
    Pruner(model, GIVEN, 0.5, "l2", "uniform", 1, 8).step()
    assert block.conv1.out_channels == 8
    widest = block.conv1.weight.detach().abs().amax((1, 2, 3))
    assert (widest > 0.05).all(), "a small filter was kept"
    assert kept.shape[0] == 8


def test_load_model_is_refused_in_one_line_when_weights_and_description_differ(tmp_path: Path) -> None:
    save_model(build(spec()), spec(), tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    description["layers"]["head"]["out_features"] = 7
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(BadInput, match="do not fit"):
        load_model(tmp_path)
