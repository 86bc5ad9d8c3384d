"""Operations that change colours, each held against torchvision's."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from tasks.core.augmentation import colours
from tests.unit.augmentation.images import (
    N,
    images,
    levels,
)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("channels", [1, 3])
def test_colour_equals_torchvisions_when_the_factor_is_the_same(
    name: str, factor: float, channels: int
) -> None:
    if channels == 1 and name == "saturation":
        pytest.skip("grey images have none")
    change: Callable[[Tensor, Tensor], Tensor] = getattr(colours, name)
    x_NCHW = levels(images(channels))
    wanted = getattr(reference, f"adjust_{name}")(x_NCHW / 255, factor) * 255
    assert (change(x_NCHW, torch.full((N,), factor)) - wanted).abs().max() < 0.05


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.0, 0.1, 0.5])
def test_hue_equals_torchvisions_when_the_turn_is_the_same(turn: float) -> None:
    x_NHWC = images(3)
    x_NHWC[0, ..., 1:] = x_NHWC[0, ..., :1]  # grey, where hue is not defined
    x_NCHW = levels(x_NHWC)
    wanted = reference.adjust_hue(x_NCHW / 255, turn) * 255
    found = colours.hue(x_NCHW, torch.full((N,), turn))
    assert (found - wanted).abs().max() < 0.05
    assert torch.equal(found[0], x_NCHW[0])


def test_channels_change_places_when_they_are_permuted() -> None:
    x_NCHW = levels(images(3))
    order_N3 = torch.tensor([[2, 0, 1]]).expand(N, 3)
    assert torch.equal(colours.permute(x_NCHW, order_N3), x_NCHW[:, [2, 0, 1]])


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colour_takes_each_images_own_factor_when_factors_differ(name: str) -> None:
    change: Callable[[Tensor, Tensor], Tensor] = getattr(colours, name)
    x_NCHW, factor_N = levels(images(3)), torch.linspace(0.1, 0.45, N)
    together = change(x_NCHW, factor_N)
    alone = [change(x_NCHW[i : i + 1], factor_N[i : i + 1])[0] for i in range(N)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-5, atol=1e-3)
