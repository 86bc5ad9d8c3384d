"""Each operation does what its name says, to each image on its own, and the same for the same draws."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as reference

from tasks.core.augmentation import colours
from tasks.core.augmentation.batch import BatchAugment, normalize, pixel_scale
from tasks.core.augmentation.geometry import affine, mirror, shift

N, SIDE, CLASSES = 16, 20, 3
OPERATIONS: dict[str, dict[str, float]] = {
    "flip_horizontal": {"probability": 0.5},
    "flip_vertical": {"probability": 0.5},
    "crop": {"pixels": 3},
    "affine": {"rotate": 30.0, "scale": 0.2, "translate": 0.1},
    "brightness": {"range": 0.5},
    "contrast": {"range": 0.5},
    "saturation": {"range": 0.5},
    "hue": {"range": 0.2},
    "randaugment": {"operations": 3, "magnitude": 0.5},
    "trivialaugment": {"magnitude": 1.0},
    "erase": {"probability": 1.0},
    "mixup": {"alpha": 1.0},
    "cutmix": {"alpha": 1.0},
}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


def policy(channels: int, operations: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {"channel_mean": MEAN[:channels], "channel_std": STD[:channels], "operations": operations}


def suiting(channels: int) -> dict[str, dict[str, float]]:
    """No colour for grey images: the policy never asks for it."""
    return {k: v for k, v in OPERATIONS.items() if channels == 3 or k not in ("saturation", "hue")}


def images(channels: int, n: int = N, height: int = SIDE, width: int = SIDE) -> Tensor:
    draws = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (n, height, width, channels), dtype=torch.uint8, generator=draws)


def apply(
    x_NHWC: Tensor, operations: dict[str, dict[str, float]], strength: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    augment = BatchAugment(policy(x_NHWC.shape[3], operations), strength)
    labels_N = torch.arange(len(x_NHWC)) % CLASSES
    return augment(x_NHWC, labels_N, torch.Generator().manual_seed(seed), CLASSES)


def plain(x_NHWC: Tensor) -> Tensor:
    channels = x_NHWC.shape[3]
    return normalize(x_NHWC, MEAN[:channels], STD[:channels])


def levels(x_NHWC: Tensor) -> Tensor:
    return x_NHWC.permute(0, 3, 1, 2).float().contiguous()


# ---- normalisation


@pytest.mark.parametrize("channels", [1, 3])
def test_normalize_gives_mean_zero_and_deviation_one_when_given_the_images_own_statistics(
    channels: int,
) -> None:
    x_NHWC = images(channels) // torch.tensor([1, 2, 3][:channels])
    pixels = x_NHWC.double() / 255
    mean, std = pixels.mean((0, 1, 2)).tolist(), pixels.std((0, 1, 2), correction=0).tolist()
    x_NCHW = normalize(x_NHWC, mean, std)
    _, scale = pixel_scale(mean, std)
    assert x_NCHW.shape == (N, channels, SIDE, SIDE)
    assert x_NCHW.dtype == torch.float32
    assert x_NCHW.is_contiguous(memory_format=torch.channels_last)
    assert x_NCHW.mean().abs() <= 0.5 * scale + 1e-5, "zero is a whole grey level, at most half of one away"
    assert x_NCHW.square().mean().item() == pytest.approx(1, abs=1e-4)


def test_normalize_gives_zeros_when_all_pixels_are_alike() -> None:
    x_NCHW = normalize(torch.full((2, 8, 8, 1), 51, dtype=torch.uint8), [0.2], [0.0])
    assert torch.equal(x_NCHW, torch.zeros(2, 1, 8, 8))


# ---- each operation by itself


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


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colour_takes_each_images_own_factor_when_factors_differ(name: str) -> None:
    change: Callable[[Tensor, Tensor], Tensor] = getattr(colours, name)
    x_NCHW, factor_N = levels(images(3)), torch.linspace(0.1, 0.45, N)
    together = change(x_NCHW, factor_N)
    alone = [change(x_NCHW[i : i + 1], factor_N[i : i + 1])[0] for i in range(N)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-5, atol=1e-3)


# ---- a policy


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_operation_changes_images_each_by_its_own_draw_when_it_is_on(name: str, channels: int) -> None:
    if name not in suiting(channels):
        pytest.skip("the policy never asks for colour on grey images")
    same = images(channels)[:1].repeat(N, 1, 1, 1)
    x_NHWC = images(channels) if name in ("mixup", "cutmix") else same
    x_NCHW, targets_NK = apply(x_NHWC, {name: OPERATIONS[name]})
    assert x_NCHW.shape == (N, channels, SIDE, SIDE)
    assert (x_NCHW.dtype, targets_NK.dtype) == (torch.float32, torch.float32)
    assert x_NCHW.is_contiguous(memory_format=torch.channels_last)
    assert torch.isfinite(x_NCHW).all()
    assert not torch.equal(x_NCHW, plain(x_NHWC))
    distinct = {tuple(image.flatten().tolist()) for image in x_NCHW}
    assert len(distinct) == 2 if name.startswith("flip") else len(distinct) > N // 2
    assert torch.allclose(targets_NK.sum(1), torch.ones(N))


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in ("erase", "mixup", "cutmix")])
def test_pixels_stay_within_black_and_white_when_changed_at_full_strength(name: str) -> None:
    x_NCHW, _ = apply(images(3), {name: OPERATIONS[name]}, strength=2.0)
    zero, scale = pixel_scale(MEAN, STD)
    black, white = -zero * scale, (255 - zero) * scale
    assert x_NCHW.min() >= black - 1e-4
    assert x_NCHW.max() <= white + 1e-4


@pytest.mark.parametrize("channels", [1, 3])
def test_batch_is_the_same_when_the_generator_is(channels: int) -> None:
    x_NHWC = images(channels)
    untouched = x_NHWC.clone()
    first, again, other = (apply(x_NHWC, suiting(channels), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(x_NHWC, untouched)


@pytest.mark.parametrize("channels", [1, 3])
def test_batch_is_only_normalised_when_strength_is_zero(channels: int) -> None:
    x_NCHW, targets_NK = apply(images(channels), suiting(channels), strength=0.0)
    assert torch.equal(x_NCHW, plain(images(channels)))
    assert torch.equal(targets_NK, torch.eye(CLASSES)[torch.arange(N) % CLASSES])


@pytest.mark.parametrize(("name", "axis"), [("flip_horizontal", 3), ("flip_vertical", 2)])
@pytest.mark.parametrize("others", [{}, {"affine": {"rotate": 1e-6, "scale": 0.0, "translate": 0.0}}])
def test_flip_mirrors_about_half_of_the_images_when_on(
    name: str, axis: int, others: dict[str, dict[str, float]]
) -> None:
    x_NHWC = images(3, 400, 4, 5)
    original = plain(x_NHWC)
    for strength in (0.5, 2.0):
        x_NCHW, _ = apply(x_NHWC, {name: OPERATIONS[name], **others}, strength)
        flipped = ((x_NCHW - original.flip(axis)).abs().amax((1, 2, 3)) < 1e-3).sum().item()
        kept = ((x_NCHW - original).abs().amax((1, 2, 3)) < 1e-3).sum().item()
        assert flipped + kept == 400
        assert 150 < flipped < 250


@pytest.mark.parametrize(("strength", "most"), [(0.2, 0), (0.25, 1), (1.0, 2), (1.25, 3), (2.0, 4)])
def test_crop_reaches_every_window_of_the_padded_image_when_strength_rounds_to_it(
    strength: float, most: int
) -> None:
    x_NHWC = images(1)[:1].repeat(1500, 1, 1, 1)
    x_NCHW, _ = apply(x_NHWC, {"crop": {"pixels": 2}}, strength)
    zero, _ = pixel_scale(MEAN[:1], STD[:1])
    padded = plain(F.pad(x_NHWC[:1], (0, 0, most, most, most, most), value=zero))
    steps = range(2 * most + 1)
    windows = {
        tuple(padded[0, 0, r : r + SIDE, c : c + SIDE].flatten().tolist()) for r in steps for c in steps
    }
    assert {tuple(image.flatten().tolist()) for image in x_NCHW} == windows


def test_ranges_grow_with_strength_when_it_is_doubled() -> None:
    x_NHWC = torch.full((500, 4, 4, 1), 60, dtype=torch.uint8)
    zero, scale = pixel_scale(MEAN[:1], STD[:1])
    for strength in (0.5, 1.0, 2.0):
        x_NCHW, _ = apply(x_NHWC, {"brightness": {"range": 0.4}}, strength)
        factor_N = (x_NCHW[:, 0, 0, 0] / scale + zero) / 60
        assert factor_N.min().item() == pytest.approx(1 - 0.4 * strength, abs=0.05)
        assert factor_N.max().item() == pytest.approx(1 + 0.4 * strength, abs=0.05)


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_erase_fills_one_rectangle_with_the_mean_when_drawn(strength: float) -> None:
    x_NHWC = torch.full((600, SIDE, 30, 3), 250, dtype=torch.uint8)
    x_NCHW, _ = apply(x_NHWC, {"erase": {"probability": 0.6}}, strength)
    erased_NHW = (x_NCHW == 0).all(1)
    assert torch.equal(erased_NHW, (x_NCHW != plain(x_NHWC)).any(1))
    chosen = erased_NHW.flatten(1).any(1)
    assert chosen.float().mean().item() == pytest.approx(min(1.0, 0.6 * strength), abs=0.07)
    for erased_HW in erased_NHW[chosen]:
        rows, columns = erased_HW.any(1), erased_HW.any(0)
        assert torch.equal(erased_HW, rows[:, None] & columns), "a rectangle"
        assert 0.01 < erased_HW.float().mean() < 0.36


# ---- mixing


@pytest.mark.parametrize("name", ["mixup", "cutmix", "both"])
@pytest.mark.parametrize("channels", [1, 3])
def test_targets_are_mixed_by_the_share_of_the_pixels_when_images_are(name: str, channels: int) -> None:
    x_NHWC = images(channels)
    operations = {k: OPERATIONS[k] for k in (("mixup", "cutmix") if name == "both" else (name,))}
    augment = BatchAugment(policy(channels, operations))
    x_NCHW, targets_NK = augment(x_NHWC, torch.arange(N), torch.Generator().manual_seed(1), N)
    original = plain(x_NHWC)
    blended = pasted = 0
    for i in range(N):
        share = targets_NK[i, i].item()
        partners = [j for j in range(N) if j != i and targets_NK[i, j] > 0]
        assert len(partners) <= 1
        partner = original[partners[0] if partners else i]
        is_blend = torch.allclose(x_NCHW[i], share * original[i] + (1 - share) * partner, atol=1e-4)
        kept_HW = (x_NCHW[i] == original[i]).all(0)
        taken_HW = (x_NCHW[i] == partner).all(0)
        is_paste = bool((kept_HW | taken_HW).all()) and abs(kept_HW.float().mean().item() - share) < 0.05
        assert is_blend or is_paste
        blended, pasted = blended + (not is_paste), pasted + (not is_blend)
    assert (blended > 0) == (name != "cutmix")
    assert (pasted > 0) == (name != "mixup")


@pytest.mark.parametrize("alpha", [0.001, 0.2, 1.0, 8.0])
def test_mixup_draws_lambda_from_beta_for_each_image_when_on(alpha: float) -> None:
    n = 4000
    augment = BatchAugment(policy(1, {"mixup": {"alpha": alpha}}))
    x_NHWC = torch.zeros(n, 2, 2, 1, dtype=torch.uint8)
    _, targets_NK = augment(x_NHWC, torch.arange(n), torch.Generator().manual_seed(0), n)
    share_N = targets_NK.diagonal()
    assert torch.isfinite(share_N).all()
    assert share_N.mean().item() == pytest.approx(0.5, abs=0.03)
    assert share_N.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_mixing_ignores_the_strength_when_it_is_not_zero() -> None:
    weak, strong = (apply(images(1), {"mixup": {"alpha": 1.0}}, strength) for strength in (0.1, 2.0))
    assert torch.equal(weak[0], strong[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batch_stays_on_the_gpu_when_it_and_the_generator_are_there() -> None:
    augment = BatchAugment(policy(3, OPERATIONS))
    labels_N = (torch.arange(N) % CLASSES).cuda()
    results = [
        augment(images(3).cuda(), labels_N, torch.Generator("cuda").manual_seed(0), CLASSES) for _ in range(2)
    ]
    assert results[0][0].is_cuda
    assert results[0][1].is_cuda
    assert torch.equal(results[0][0], results[1][0])
