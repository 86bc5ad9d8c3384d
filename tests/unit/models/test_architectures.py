"""Every network is built by name, for any images, and says in one line when it cannot be."""

import pytest
import torch
from torch import nn

from tasks.core.common.errors import BadInput
from tasks.core.models.architectures import build
from tasks.core.models.spec import Spec
from tests.networks import ARCHITECTURES

TIMM = ("timm/efficientnet_b0", "timm/convnext_atto", "timm/resnet18")
MORE = (*TIMM, "convnext_tiny", "regnet_y_400mf", "shufflenet_v2_x0_5", "mnasnet0_5", "googlenet")


def spec(arch: str, channels: int = 1, side: int = 28, **options: float) -> Spec:
    return Spec(arch, 16, options.pop("dropout", 0.1), (side, side, channels), 5, **options)


@pytest.mark.parametrize("arch", [*ARCHITECTURES, *(pytest.param(a, marks=pytest.mark.slow) for a in MORE)])
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 96)])
def test_network_gives_logits_when_images_are_grey_and_small_or_rgb_and_large(
    arch: str, channels: int, side: int
) -> None:
    model = build(spec(arch, channels, side)).eval()
    with torch.inference_mode():
        assert model(torch.zeros(2, channels, side, side)).shape == (2, 5)


@pytest.mark.parametrize("arch", ["resnet_small", "resnet18", "mobilenet_v2"])
def test_every_dropout_has_the_probability_that_is_asked_for_when_built(arch: str) -> None:
    for probability in (0.0, 0.3):
        model = build(spec(arch, dropout=probability))
        found = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
        assert found <= {probability}
        assert probability == 0 or found


def test_branches_drop_out_of_some_samples_when_stochastic_depth_is_on() -> None:
    torch.manual_seed(0)
    model = build(spec("resnet_small", dropout=0.0, stochastic_depth=0.5))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0  # statistics as they are
            module.eval()
    x_NCHW = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(1)).expand(200, -1, -1, -1)
    for block in model.blocks:  # type: ignore[union-attr]
        block.bn1.eval(), block.bn2.eval()
    logits_NK = model(x_NCHW)
    kinds = len(torch.unique((logits_NK * 1e4).round(), dim=0))
    assert kinds == 8, "each of three branches is there or not"
    model.eval()
    assert len(torch.unique((model(x_NCHW) * 1e4).round(), dim=0)) == 1


def test_branches_drop_out_more_often_the_deeper_they_are_when_torchvision_has_some() -> None:
    model = build(spec("efficientnet_b0", stochastic_depth=0.4))
    found = [module.p for module in model.modules() if type(module).__name__ == "StochasticDepth"]
    assert found == sorted(found) and found[0] > 0 and found[-1] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (spec("mobilnet_v2"), r"no network is called mobilnet_v2; did you mean mobilenet_v2"),
        (spec("alexnet"), r"train\.arch: alexnet does not take images of 28 x 28"),
        (spec("vit_b_16"), r"train\.arch: vit_b_16 does not take images of 28 x 28"),
        (spec("resnet18", stochastic_depth=0.2), r"train\.stochastic_depth: resnet18 has no branches"),
    ],
)
def test_network_is_refused_in_one_line_when_it_cannot_be_had(wanted: Spec, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        build(wanted)
    assert "\n" not in str(caught.value)
