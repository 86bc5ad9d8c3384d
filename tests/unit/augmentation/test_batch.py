"""Each operation does what its name says, to each image on its own, and the same for the same draws."""

import pytest
import torch
from torch.nn import functional as F

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.data.inputs import ImageInput
from tests.unit.augmentation.images import (
    CLASSES,
    OPERATIONS,
    SIDE,
    N,
    apply,
    images,
    of_channels,
    plain,
    policy,
    suiting,
)

# ---- normalisation


@pytest.mark.parametrize("channels", [1, 3])
def test_normalize_gives_mean_zero_and_deviation_one_when_given_the_images_own_statistics(
    channels: int,
) -> None:
    x_NHWC = images(channels) // torch.tensor([1, 2, 3][:channels])
    pixels = x_NHWC.double() / 255
    mean, std = pixels.mean((0, 1, 2)).tolist(), pixels.std((0, 1, 2), correction=0).tolist()
    given = ImageInput((SIDE, SIDE, channels), mean, std)
    x_NCHW = given.tensor(x_NHWC)
    assert x_NCHW.shape == (N, channels, SIDE, SIDE)
    assert x_NCHW.dtype == torch.float32
    assert x_NCHW.is_contiguous(memory_format=torch.channels_last)
    assert x_NCHW.mean().abs() <= 0.5 * given.scale + 1e-5, (
        "zero is a whole grey level, at most half of one away"
    )
    assert x_NCHW.square().mean().item() == pytest.approx(1, abs=1e-4)


def test_normalize_gives_zeros_when_all_pixels_are_alike() -> None:
    x_NCHW = ImageInput((8, 8, 1), [0.2], [0.0]).tensor(torch.full((2, 8, 8, 1), 51, dtype=torch.uint8))
    assert torch.equal(x_NCHW, torch.zeros(2, 1, 8, 8))


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
    if name == "permute_channels":
        assert 2 < len(distinct) <= 6
    else:
        assert len(distinct) == 2 if name.startswith("flip") else len(distinct) > N // 2
    assert torch.allclose(targets_NK.sum(1), torch.ones(N))


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in ("erase", "mixup", "cutmix")])
def test_pixels_stay_within_black_and_white_when_changed_at_full_strength(name: str) -> None:
    x_NCHW, _ = apply(images(3), {name: OPERATIONS[name]}, strength=2.0)
    zero, scale = of_channels(3).zero, of_channels(3).scale
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
    padded = plain(F.pad(x_NHWC[:1], (0, 0, most, most, most, most), value=of_channels(1).zero))
    steps = range(2 * most + 1)
    windows = {
        tuple(padded[0, 0, r : r + SIDE, c : c + SIDE].flatten().tolist()) for r in steps for c in steps
    }
    assert {tuple(image.flatten().tolist()) for image in x_NCHW} == windows


def test_ranges_grow_with_strength_when_it_is_doubled() -> None:
    x_NHWC = torch.full((500, 4, 4, 1), 60, dtype=torch.uint8)
    zero, scale = of_channels(1).zero, of_channels(1).scale
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
