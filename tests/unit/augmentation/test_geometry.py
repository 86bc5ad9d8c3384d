"""Operations that move pixels, each held against torch's or torchvision's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as reference

from tasks.core.augmentation.geometry import affine, mirror, shift
from tests.unit.augmentation.images import N, images, levels


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_mirror_equals_torch_flip_when_chosen_and_changes_nothing_else(axis: int, channels: int) -> None:
    x_NHWC, flipped_N = images(channels, height=9, width=12), torch.arange(N) % 3 == 0
    mirrored = mirror(x_NHWC, flipped_N, axis)
    for i in range(N):
        assert torch.equal(mirrored[i], x_NHWC[i].flip(axis - 1) if flipped_N[i] else x_NHWC[i])


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(3, 12),
    width=st.integers(3, 12),
    channels=st.sampled_from([1, 3]),
    most=st.integers(1, 5),
    data=st.data(),
)
def test_shift_equals_padding_and_slicing_when_moved_by_whole_pixels(
    height: int, width: int, channels: int, most: int, data: st.DataObject
) -> None:
    n = 5
    move = st.lists(st.integers(-most, most), min_size=n, max_size=n)
    down_N, right_N = torch.tensor(data.draw(move)), torch.tensor(data.draw(move))
    x_NHWC, fill = images(channels, n, height, width), 77
    shifted = shift(x_NHWC, down_N, right_N, most, torch.full((channels,), fill, dtype=torch.uint8))
    padded = F.pad(x_NHWC, (0, 0, most, most, most, most), value=fill)
    for i in range(n):
        top, left = most - int(down_N[i]), most - int(right_N[i])
        assert torch.equal(shifted[i], padded[i, top : top + height, left : left + width])


def moved(x_NHWC: Tensor, degrees: float = 0, zoom: float = 1, **others: tuple[float, float]) -> Tensor:
    n = len(x_NHWC)
    return affine(
        x_NHWC.float(),
        torch.full((n,), float(degrees)),
        torch.full((n,), float(zoom)),
        torch.tensor(others.get("flips", (False, False))).expand(n, 2),
        torch.tensor(others.get("move", (0.0, 0.0))).expand(n, 2),
    )


@pytest.mark.parametrize("quarters", [-1, 0, 1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_affine_equals_rot90_when_the_angle_is_a_multiple_of_ninety(quarters: int, channels: int) -> None:
    x_NHWC = images(channels)
    wanted = torch.rot90(x_NHWC, quarters, (1, 2)).float()
    assert (moved(x_NHWC, 90 * quarters) - wanted).abs().max() < 0.05, "of 255"


@pytest.mark.parametrize(
    ("flips", "axes"), [((True, False), [2]), ((False, True), [1]), ((True, True), [1, 2])]
)
def test_affine_equals_flip_when_it_only_flips(flips: tuple[bool, bool], axes: list[int]) -> None:
    x_NHWC = images(3, height=9, width=14)
    assert (moved(x_NHWC, flips=flips) - x_NHWC.flip(axes).float()).abs().max() < 0.05


def test_affine_equals_shift_when_it_moves_by_whole_pixels_after_flipping() -> None:
    x_NHWC = images(1, height=9, width=14)
    right, down = torch.full((N,), 3), torch.full((N,), -2)
    wanted = shift(x_NHWC.flip(2), down, right, 3, torch.zeros(1, dtype=torch.uint8)).float()
    assert (moved(x_NHWC, flips=(True, False), move=(3.0, -2.0)) - wanted).abs().max() < 0.05


@pytest.mark.parametrize(("degrees", "zoom", "move"), [(25.0, 1.0, (0, 0)), (-40.0, 1.3, (3, -2))])
def test_affine_equals_torchvisions_when_the_image_is_not_square(
    degrees: float, zoom: float, move: tuple[int, int]
) -> None:
    x_NHWC = images(3, height=16, width=24)
    # torchvision's angles run clockwise.
    wanted = reference.affine(
        levels(x_NHWC), -degrees, list(move), zoom, [0.0, 0.0], reference.InterpolationMode.BILINEAR
    ).permute(0, 2, 3, 1)
    found = moved(x_NHWC, degrees, zoom, move=(float(move[0]), float(move[1])))
    # At the frame torchvision multiplies with the sampled mask of what lies inside.
    inside = moved(torch.full_like(x_NHWC, 255), degrees, zoom, move=move) > 254.9
    assert inside.float().mean() > 0.3
    assert (found - wanted)[inside].abs().max() < 0.1
