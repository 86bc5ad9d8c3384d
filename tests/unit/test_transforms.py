"""Each operation does what its name says, to each image on its own, and the same for the same draws."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from tasks.augment import resolve_policy
from tasks.core.errors import BadInput
from tasks.core.params import AugmentParams
from tasks.core.transforms import BatchAugment, normalize

N, SIDE, CLASSES = 16, 20, 3
OPERATIONS: dict[str, dict[str, float]] = {
    "flip_horizontal": {},
    "flip_vertical": {},
    "crop": {"pixels": 3},
    "affine": {"rotate": 30.0, "scale": 0.2, "translate": 0.1},
    "brightness": {"range": 0.5},
    "contrast": {"range": 0.5},
    "saturation": {"range": 0.5},
    "hue": {"range": 0.2},
    "erase": {"probability": 1.0},
    "mixup": {"alpha": 1.0},
    "cutmix": {"alpha": 1.0},
}


def policy(channels: int, **operations: dict[str, float]) -> dict[str, Any]:
    return {
        "channel_mean": [0.4, 0.5, 0.6][:channels],
        "channel_std": [0.2, 0.3, 0.25][:channels],
        "operations": operations,
    }


def images(channels: int) -> Tensor:
    return torch.randint(
        0, 256, (N, SIDE, SIDE, channels), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )


def apply(
    x_NHWC: Tensor, operations: dict[str, dict[str, float]], strength: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    augment = BatchAugment(policy(x_NHWC.shape[3], **operations), strength)
    return augment(x_NHWC, torch.arange(N) % CLASSES, torch.Generator().manual_seed(seed), CLASSES)


def plain(x_NHWC: Tensor) -> Tensor:
    described = policy(x_NHWC.shape[3])
    return normalize(x_NHWC, described["channel_mean"], described["channel_std"])


@pytest.mark.parametrize("channels", [1, 3])
def test_normalize_gives_mean_zero_and_deviation_one_when_given_the_images_own_statistics(
    channels: int,
) -> None:
    x_NHWC = images(channels)
    pixels = x_NHWC.double() / 255
    x_NCHW = normalize(x_NHWC, pixels.mean((0, 1, 2)).tolist(), pixels.std((0, 1, 2)).tolist())
    assert x_NCHW.shape == (N, channels, SIDE, SIDE)
    assert x_NCHW.mean((0, 2, 3)).abs().max() < 1e-4
    assert (x_NCHW.std((0, 2, 3)) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_operation_changes_images_each_by_its_own_draw_when_it_is_on(name: str, channels: int) -> None:
    if channels == 1 and name in ("saturation", "hue"):
        return  # the policy never holds these for grey images: see test_policy_*
    same = images(channels)[:1].repeat(N, 1, 1, 1)
    x_NHWC = images(channels) if name in ("mixup", "cutmix") else same
    x_NCHW, targets_NK = apply(x_NHWC, {name: OPERATIONS[name]})
    assert x_NCHW.shape == (N, channels, SIDE, SIDE)
    assert x_NCHW.is_contiguous(memory_format=torch.channels_last)
    assert torch.isfinite(x_NCHW).all()
    assert not torch.equal(x_NCHW, plain(x_NHWC))
    distinct = {tuple(image.flatten().tolist()) for image in x_NCHW}
    assert len(distinct) == 2 if name.startswith("flip") else len(distinct) > N // 2
    assert torch.allclose(targets_NK.sum(1), torch.ones(N))


@pytest.mark.parametrize("channels", [1, 3])
def test_batch_is_the_same_when_the_generator_is(channels: int) -> None:
    operations = {k: v for k, v in OPERATIONS.items() if channels == 3 or k not in ("saturation", "hue")}
    first, again, other = (apply(images(channels), operations, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_batch_is_only_normalised_when_strength_is_zero() -> None:
    x_NCHW, targets_NK = apply(images(3), OPERATIONS, strength=0.0)
    assert torch.equal(x_NCHW, plain(images(3)))
    assert torch.equal(targets_NK.argmax(1), torch.arange(N) % CLASSES)


@pytest.mark.parametrize(("name", "axis"), [("flip_horizontal", 3), ("flip_vertical", 2)])
def test_flip_mirrors_about_half_of_the_images_when_on(name: str, axis: int) -> None:
    x_NCHW, _ = apply(images(3), {name: {}})
    original = plain(images(3))
    flipped = [torch.equal(x_NCHW[i], original[i].flip(axis - 1)) for i in range(N)]
    kept = [torch.equal(x_NCHW[i], original[i]) for i in range(N)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 0 < sum(flipped) < N


@pytest.mark.parametrize("channels", [1, 3])
def test_crop_is_a_window_of_the_image_padded_with_the_mean_when_on(channels: int) -> None:
    x_NHWC = images(channels)
    x_NCHW, _ = apply(x_NHWC, {"crop": {"pixels": 2}})
    fill = torch.tensor([round(255 * m) for m in policy(channels)["channel_mean"]], dtype=torch.uint8)
    padded = fill.expand(N, SIDE + 4, SIDE + 4, channels).clone()
    padded[:, 2:-2, 2:-2] = x_NHWC
    for i in range(N):
        windows = [
            plain(padded[i : i + 1, r : r + SIDE, c : c + SIDE])[0] for r in range(5) for c in range(5)
        ]
        assert any(torch.equal(x_NCHW[i], window) for window in windows)


def test_warp_equals_a_quarter_turn_when_the_angle_is_ninety_degrees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.core.transforms._uniform", lambda shape, low, high, *_: torch.full(shape, high))
    x_NCHW, _ = apply(images(3), {"affine": {"rotate": 90.0, "scale": 0.0, "translate": 0.0}})
    original = plain(images(3))
    turns = [torch.rot90(original, k, (2, 3)) for k in (1, 3)]
    assert min((x_NCHW - turn).abs().max().item() for turn in turns) < 1e-3


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("brightness", reference.adjust_brightness),
        ("contrast", reference.adjust_contrast),
        ("saturation", reference.adjust_saturation),
    ],
)
def test_colour_equals_torchvisions_when_the_factor_is_the_same(
    name: str, function: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    factor = 0.6
    monkeypatch.setattr(
        "tasks.core.transforms._factor",
        lambda n, spread, *_: torch.full((n, 1, 1, 1), factor if spread else 1.0),
    )
    x_NCHW, _ = apply(images(3), {name: {"range": 0.5}})
    described = policy(3)
    pixels = images(3).permute(0, 3, 1, 2).float() / 255
    wanted = reference.normalize(function(pixels, factor), described["channel_mean"], described["channel_std"])
    assert (x_NCHW - wanted).abs().max() < 5e-3


def test_hue_keeps_the_luma_when_no_channel_is_cut_off() -> None:
    grey = images(1).expand(-1, -1, -1, 3)
    x_NCHW, _ = apply(grey, {"hue": {"range": 0.5}})
    assert (x_NCHW - plain(grey)).abs().max() < 1e-2, "grey has no hue to turn"


def test_erase_fills_a_part_with_the_mean_when_on() -> None:
    x_NCHW, _ = apply(images(3), {"erase": {"probability": 1.0}})
    erased_N = (x_NCHW == 0).all(1).float().mean((1, 2))
    assert (erased_N > 0).all()
    assert (erased_N < 0.5).all()


def test_mixup_mixes_targets_by_the_share_of_the_pixels_when_on() -> None:
    x_NCHW, targets_NK = apply(images(3), {"mixup": {"alpha": 1.0}})
    original, own = plain(images(3)), torch.arange(N) % CLASSES
    for i in range(N):
        share = targets_NK[i, own[i]].item()
        candidates = [share * original[i] + (1 - share) * original[j] for j in range(N)]
        same_class = share > 0.999
        assert same_class or any(torch.allclose(x_NCHW[i], c, atol=1e-4) for c in candidates)


def test_cutmix_mixes_targets_by_the_area_that_was_replaced_when_on() -> None:
    x_NCHW, targets_NK = apply(images(3), {"cutmix": {"alpha": 1.0}})
    original, own = plain(images(3)), torch.arange(N) % CLASSES
    for i in range(N):
        kept = (x_NCHW[i] == original[i]).all(0).float().mean().item()
        share = targets_NK[i, own[i]].item()
        assert share > 0.999 or kept == pytest.approx(share, abs=1e-5)


def test_policy_leaves_colour_out_when_the_images_are_grey() -> None:
    params = AugmentParams(hue=0.1, saturation=0.2, brightness=0.3)
    resolved = resolve_policy(params, (28, 28, 1), [0.5], [0.2])
    assert resolved["left_out"] == {"hue": "the images are grey", "saturation": "the images are grey"}
    assert "brightness" in resolved["operations"]
    assert "hue" in resolve_policy(params, (28, 28, 3), [0.5] * 3, [0.2] * 3)["operations"]


def test_policy_is_refused_in_one_line_when_the_crop_is_too_large() -> None:
    with pytest.raises(BadInput, match=r"augment\.crop \(20\)"):
        resolve_policy(AugmentParams(crop=20), (28, 28, 1), [0.5], [0.2])
