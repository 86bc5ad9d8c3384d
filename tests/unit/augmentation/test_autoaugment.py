"""RandAugment and TrivialAugment: operations equal torchvision's, and every image draws its own."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from tasks.core.augmentation import colours
from tasks.core.augmentation.autoaugment import OPERATIONS, RANDAUGMENT, TRIVIALAUGMENT, AutoAugment
from tasks.core.augmentation.geometry import warp

N, SIDE = 12, 20


def images(channels: int) -> Tensor:
    """uint8, smooth enough to have structure, each with a range of levels of its own."""
    draws = torch.Generator().manual_seed(1)
    coarse = torch.rand(N, channels, 5, 5, generator=draws)
    smooth = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")
    return (smooth * torch.linspace(90, 250, N)[:, None, None, None]).to(torch.uint8)


def same(count: int, channels: int = 3) -> Tensor:
    return images(channels)[-1:].float().repeat(count, 1, 1, 1)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.9])
@pytest.mark.parametrize("channels", [1, 3])
def test_sharpness_equals_torchvisions_when_the_factor_is_the_same(channels: int, factor: float) -> None:
    x_NCHW = images(channels).float()
    wanted = reference.adjust_sharpness(x_NCHW / 255, factor) * 255
    # Only our last rounding is missing: theirs rounds the smoothed picture of bytes, and neither of floats.
    assert (colours.sharpness(x_NCHW, torch.full((N,), factor)) - wanted).abs().max() < 0.05


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 8])
def test_posterize_equals_torchvisions_when_the_bits_are_the_same(bits: int) -> None:
    x_NCHW = images(3)
    found = colours.posterize(x_NCHW.float(), torch.full((N,), float(bits)))
    assert torch.equal(found, reference.posterize(x_NCHW, bits).float())


@pytest.mark.parametrize("threshold", [0.0, 80.0, 255.0])
def test_solarize_equals_torchvisions_when_the_threshold_is_the_same(threshold: float) -> None:
    x_NCHW = images(3)
    found = colours.solarize(x_NCHW.float(), torch.full((N,), threshold))
    assert torch.equal(found, reference.solarize(x_NCHW, threshold).float())


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
@pytest.mark.parametrize("channels", [1, 3])
def test_stretching_equals_torchvisions_when_a_channel_may_be_flat(name: str, channels: int) -> None:
    x_NCHW = images(channels)
    x_NCHW[0, 0] = 37
    wanted = getattr(reference, name)(x_NCHW).float()
    found = getattr(colours, name)(x_NCHW.float())
    assert (found - wanted).abs().max() < 1.01, "theirs are whole levels, cut off"
    assert torch.equal(found[0, 0], x_NCHW[0, 0].float())


@pytest.mark.parametrize(
    ("shear", "move"), [((12.0, 0.0), (0, 0)), ((0.0, -9.0), (0, 0)), ((0.0, 0.0), (3, -2))]
)
def test_warp_equals_torchvisions_affine_when_sheared_or_moved(
    shear: tuple[float, float], move: tuple[int, int]
) -> None:
    x_NCHW = images(3).float()
    wanted = reference.affine(x_NCHW, 0.0, list(move), 1.0, list(shear), reference.InterpolationMode.BILINEAR)
    x, y = torch.deg2rad(torch.tensor(shear)).tan().tolist()
    turn_N22 = torch.tensor([[1.0, x], [y, 1.0]]).expand(N, 2, 2)
    found = warp(x_NCHW, turn_N22, torch.tensor([float(move[0]), float(move[1])]).expand(N, 2))
    inner = (slice(None), slice(None), slice(6, -6), slice(6, -6))
    assert (found - wanted)[inner].abs().max() < 0.1


@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_is_drawn_about_equally_often_when_there_are_many_images(channels: int) -> None:
    count = 3000
    x_NCHW = same(count, channels)
    y_NCHW = AutoAugment(RANDAUGMENT, 1, 0.7)(x_NCHW, 0, torch.Generator().manual_seed(0))
    kept = (y_NCHW == x_NCHW).flatten(1).all(1).sum().item()
    operations = len(OPERATIONS) - (channels == 1)
    assert kept / count == pytest.approx(1 / operations, abs=0.02), "identity alone changes nothing"
    distinct = len({tuple(image.flatten().tolist()) for image in y_NCHW})
    # Five moves and the three or four factors go either way; what has no sign gives one picture.
    assert distinct == 1 + 2 * (operations - 5) + 4


def test_magnitudes_are_drawn_for_each_image_when_trivial() -> None:
    y_NCHW = AutoAugment(TRIVIALAUGMENT, 1, 1.0)(same(400), 0, torch.Generator().manual_seed(0))
    assert len({tuple(image.flatten().tolist()) for image in y_NCHW}) > 200


def test_pictures_differ_more_when_the_magnitude_is_larger() -> None:
    x_NCHW = same(600)

    def change(magnitude: float) -> float:
        y_NCHW = AutoAugment(RANDAUGMENT, 2, magnitude)(x_NCHW, 0, torch.Generator().manual_seed(0))
        return float((y_NCHW - x_NCHW).abs().mean())

    assert change(0.1) < change(0.4) < change(1.0)


def test_uncovered_pixels_take_the_filling_when_a_picture_moves() -> None:
    x_NCHW = torch.full((200, 1, 16, 16), 200.0)
    y_NCHW = AutoAugment(RANDAUGMENT, 1, 1.0)(x_NCHW, 90, torch.Generator().manual_seed(0))
    moved = (y_NCHW == 90).flatten(1).any(1)
    assert 0.2 < moved.float().mean() < 0.5
    assert y_NCHW.min() >= 0
