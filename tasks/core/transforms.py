"""Augmentation of whole batches: one draw a sample, one pass of tensor operations a batch.

Everything up to the normalisation works on grey levels 0..255, laid out as N images, H high, W wide,
C channels (1 grey, 3 RGB), which is how a decoder gives them and what `channels_last` means. Flips and
whole-pixel crops copy bytes; everything else that moves pixels is one bilinear sampling. Where a moved
picture leaves the frame uncovered, its edge pixels are repeated: that fits photographs and drawings
on a plain ground alike. Names carry their shape: x_NHWC, factor_N.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

WHITE = 255.0
LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as in torchvision
SMALLEST_ZOOM = 0.1  # at strength 2 the lower end of the range could reach nothing


def normalize(x_NHWC: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """uint8 x_NHWC -> float32 x_NCHW (channels_last), each channel less `mean`, divided by `std`.

    `mean` and `std` are one number a channel for pixels in 0..1. A channel without any variation
    (std 0) becomes 0. Exportable: Transpose, Cast, Mul, Add.
    """
    scale_C, shift_C = _line(mean, std, x_NHWC.device)
    return x_NHWC.permute(0, 3, 1, 2).to(torch.float32) * scale_C[:, None, None] + shift_C[:, None, None]


def _line(mean: list[float], std: list[float], device: torch.device) -> tuple[Tensor, Tensor]:
    """scale_C and shift_C, such that grey level * scale + shift is normalised."""
    scale = [1 / s if s else 0.0 for s in std]
    shift = [-m * k for m, k in zip(mean, scale, strict=True)]
    return torch.tensor([k / WHITE for k in scale], device=device), torch.tensor(shift, device=device)


# ---- what moves pixels


def mirror(x_NHWC: Tensor, flipped_N: Tensor, axis: int) -> Tensor:
    """Reverse the samples where `flipped_N` along `axis` (1 upside down, 2 left to right)."""
    n = len(x_NHWC)
    both = torch.cat([x_NHWC, x_NHWC.flip(axis)])  # then picking whole images is a plain copy of bytes
    return both.index_select(0, torch.arange(n, device=x_NHWC.device) + n * flipped_N)


def shift(x_NHWC: Tensor, down_N: Tensor, right_N: Tensor, most: int) -> Tensor:
    """Move each picture by whole pixels, at most `most`; as padding by repetition and cropping."""
    n, h, w, c = x_NHWC.shape
    padded_w = w + 2 * most
    size, row = (h + 2 * most) * padded_w * c, padded_w * c
    # A crop of a padded image is one run of `h` padded rows, of which the last columns are not wanted.
    # The overhang keeps the last image's run inside the memory.
    memory = x_NHWC.new_empty(n * size + 2 * most * c)
    memory[n * size :] = 0
    padded = memory[: n * size].view(n, h + 2 * most, padded_w, c)
    inside = padded[:, most : most + h]
    inside[:, :, most : most + w] = x_NHWC
    inside[:, :, :most] = x_NHWC[:, :, :1]
    inside[:, :, most + w :] = x_NHWC[:, :, -1:]
    padded[:, :most] = inside[:, :1]
    padded[:, most + h :] = inside[:, -1:]
    start_N = torch.arange(n, device=x_NHWC.device) * size + (most - down_N) * row + (most - right_N) * c
    runs = memory.unfold(0, h * row, 1).index_select(0, start_N)
    return runs.view(n, h, padded_w, c)[:, :, :w]


def affine(x_NHWC: Tensor, degrees_N: Tensor, zoom_N: Tensor, flips_N2: Tensor, move_N2: Tensor) -> Tensor:
    """Flip, then rotate about the centre and zoom, then move: one bilinear sampling, in float32.

    Args:
        degrees_N: counter-clockwise.
        zoom_N: above 1 enlarges.
        flips_N2: whether to flip left to right, and upside down.
        move_N2: pixels to the right, and down; fractions are allowed.
    """
    _, h, w, c = x_NHWC.shape
    side_2 = torch.tensor([w, h], dtype=torch.float32, device=x_NHWC.device)
    radians_N = torch.deg2rad(degrees_N)
    cos_N, sin_N = radians_N.cos() / zoom_N, radians_N.sin() / zoom_N
    # grid_sample asks where in the input an output pixel comes from, with both sides 2 long.
    turn_N22 = torch.stack([cos_N, -sin_N * (h / w), sin_N * (w / h), cos_N], 1).view(-1, 2, 2)
    turn_N22 = turn_N22 * (1 - 2 * flips_N2.to(torch.float32))[:, :, None]
    from_N21 = -turn_N22 @ (2 * move_N2 / side_2)[:, :, None]
    grid = F.affine_grid(torch.cat([turn_N22, from_N21], 2), [len(x_NHWC), c, h, w], align_corners=False)
    x_NCHW = x_NHWC.permute(0, 3, 1, 2).to(torch.float32)
    moved = F.grid_sample(x_NCHW, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return moved.permute(0, 2, 3, 1).contiguous()


# ---- colour: float32 grey levels; factor 1 leaves the picture as it is, as in torchvision


def brightness(x_NHWC: Tensor, factor_N: Tensor) -> Tensor:
    """Towards black below 1, brighter above."""
    return (x_NHWC * _wide(factor_N)).clamp_(0, WHITE)


def contrast(x_NHWC: Tensor, factor_N: Tensor) -> Tensor:
    """Towards the picture's mean grey level below 1, away from it above."""
    mean_N111 = _grey(x_NHWC).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean_N111, x_NHWC, _wide(factor_N)).clamp_(0, WHITE)


def saturation(x_NHWC: Tensor, factor_N: Tensor) -> Tensor:
    """Towards grey below 1, away from it above. RGB only."""
    return torch.lerp(_grey(x_NHWC), x_NHWC, _wide(factor_N)).clamp_(0, WHITE)


def hue(x_NHWC: Tensor, turn_N: Tensor) -> Tensor:
    """Turn the hue by `turn_N`, where 1 is once around the colour circle. RGB only.

    To HSV and back; the way back is the closed form of https://en.wikipedia.org/wiki/HSL_and_HSV.
    """
    red, green, blue = x_NHWC.unbind(3)
    value = x_NHWC.amax(3)
    chroma = value - x_NHWC.amin(3)
    safe = chroma.clamp(min=1e-6)  # a grey pixel has no hue: any will do
    sixth = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = sixth + 6 * turn_N[:, None, None]
    channels = []
    for offset in (5, 3, 1):
        k = (turned + offset) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, 3)


def _grey(x_NHWC: Tensor) -> Tensor:
    """x_NHW1"""
    if x_NHWC.shape[3] == 1:
        return x_NHWC
    red, green, blue = x_NHWC.split(1, 3)
    return red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]


def _wide(x_N: Tensor) -> Tensor:
    return x_N[:, None, None, None]


# ---- all together


class BatchAugment:
    """The operations of a policy, each drawn for every sample on its own.

    `strength` (0..2) scales every range: angles, zoom, moves, crop (rounded to whole pixels), colours,
    and the probability of erasing. Flips, mixup and cutmix know only on and off; 0 is all off.

    Args:
        policy: what `tasks.augment.resolve_policy` returns.
    """

    def __init__(self, policy: dict[str, Any], strength: float = 1.0) -> None:
        self.mean: list[float] = policy["channel_mean"]
        self.std: list[float] = policy["channel_std"]
        on: dict[str, dict[str, Any]] = policy["operations"] if strength > 0 else {}

        def width(name: str, what: str) -> float:
            if name not in on:
                return 0.0
            low, high = on[name][what]
            return float(high - low) / 2 * strength

        self._flips = [
            on.get(name, {}).get("probability", 0.0) for name in ("flip_horizontal", "flip_vertical")
        ]
        self._crop = math.floor(width("crop", "pixels") + 0.5)
        self._degrees = width("rotate", "degrees")
        self._zoom = width("scale", "factor")
        self._move = width("translate", "fraction")
        self._colours = [
            (change, width(name, "factor"))
            for name, change in (
                ("brightness", brightness),
                ("contrast", contrast),
                ("saturation", saturation),
            )
            if name in on
        ]
        self._hue = min(0.5, width("hue", "turns"))
        self._erase: dict[str, Any] | None = on.get("erase")
        self._erase_probability = min(1.0, self._erase["probability"] * strength) if self._erase else 0.0
        self._mixup: float = on.get("mixup", {}).get("alpha", 0.0)
        self._cutmix: float = on.get("cutmix", {}).get("alpha", 0.0)

    def __call__(
        self, x_NHWC: Tensor, labels_N: Tensor, generator: torch.Generator, num_classes: int
    ) -> tuple[Tensor, Tensor]:
        """uint8 images and int64 labels, on the device of `generator` -> x_NCHW, targets_NK.

        x_NCHW is float32, channels_last, normalised; targets_NK float32, each row adds up to 1: one-hot,
        or mixed as the images are. Equal inputs and an equal state of `generator` give equal outputs.
        """
        n = len(labels_N)
        targets_NK = torch.zeros(n, num_classes, device=x_NHWC.device).scatter_(1, labels_N[:, None], 1.0)
        moved_NHWC = self._moved(x_NHWC, generator)
        levels_NHWC = self._coloured(
            moved_NHWC.to(torch.float32, memory_format=torch.contiguous_format), generator
        )
        out_NHWC = self._normalized(levels_NHWC)
        if self._erase is not None:
            out_NHWC = out_NHWC.masked_fill(self._holes(out_NHWC, generator), 0.0)  # 0 is the mean
        if self._mixup or self._cutmix:
            own_NHW1 = self._own_share(out_NHWC, generator)
            partner_N = torch.randperm(n, generator=generator, device=x_NHWC.device)
            out_NHWC = torch.lerp(out_NHWC.index_select(0, partner_N), out_NHWC, own_NHW1)
            targets_NK = torch.lerp(targets_NK[partner_N], targets_NK, own_NHW1.mean((1, 2)))
        return out_NHWC.permute(0, 3, 1, 2), targets_NK

    def _moved(self, x_NHWC: Tensor, generator: torch.Generator) -> Tensor:
        """Flipped and cropped as bytes, or all in one sampling where pixels must be interpolated."""
        n, h, w, _ = x_NHWC.shape
        flips_N2 = torch.stack([_uniform(n, 0, 1, generator) < p for p in self._flips], 1)
        crop_N2 = torch.randint(
            -self._crop, self._crop + 1, (n, 2), generator=generator, device=generator.device
        )
        if self._degrees or self._zoom or self._move:
            side_2 = torch.tensor([w, h], dtype=torch.float32, device=x_NHWC.device)
            move_N2 = torch.stack([_uniform(n, -self._move, self._move, generator) for _ in range(2)], 1)
            return affine(
                x_NHWC,
                _uniform(n, -self._degrees, self._degrees, generator),
                _uniform(n, max(SMALLEST_ZOOM, 1 - self._zoom), 1 + self._zoom, generator),
                flips_N2,
                crop_N2 + move_N2 * side_2,
            )
        for flipped_N, probability, axis in zip(flips_N2.unbind(1), self._flips, (2, 1), strict=True):
            if probability:
                x_NHWC = mirror(x_NHWC, flipped_N, axis)
        if self._crop:
            x_NHWC = shift(x_NHWC, crop_N2[:, 1], crop_N2[:, 0], self._crop)
        return x_NHWC

    def _coloured(self, x_NHWC: Tensor, generator: torch.Generator) -> Tensor:
        for change, most in self._colours:
            x_NHWC = change(x_NHWC, _uniform(len(x_NHWC), max(0.0, 1 - most), 1 + most, generator))
        if self._hue:
            x_NHWC = hue(x_NHWC, _uniform(len(x_NHWC), -self._hue, self._hue, generator))
        return x_NHWC

    def _normalized(self, x_NHWC: Tensor) -> Tensor:
        """As `normalize`, in place; whole rows, since a loop over three channels is slow."""
        scale_C, shift_C = _line(self.mean, self.std, x_NHWC.device)
        w = x_NHWC.shape[2]
        x_NHWC.flatten(2).mul_(scale_C.repeat(w)).add_(shift_C.repeat(w))
        return x_NHWC

    def _holes(self, x_NHWC: Tensor, generator: torch.Generator) -> Tensor:
        """mask_NHW1 of random erasing (Zhong et al. 2017, arXiv:1708.04896).

        Where the paper draws again until the rectangle fits, its sides are cut to the image's.
        """
        assert self._erase is not None
        n, h, w, _ = x_NHWC.shape
        area_N = _uniform(n, *self._erase["area"], generator) * (h * w)
        # On a log scale, so that high and wide are equally likely.
        aspect_N = _uniform(n, *map(math.log, self._erase["aspect"]), generator).exp()
        high_N = (area_N * aspect_N).sqrt().round().clamp(1, h)
        wide_N = (area_N / aspect_N).sqrt().round().clamp(1, w)
        top_N = (_uniform(n, 0, 1, generator) * (h - high_N + 1)).floor()
        left_N = (_uniform(n, 0, 1, generator) * (w - wide_N + 1)).floor()
        erased_N = _uniform(n, 0, 1, generator) < self._erase_probability
        return _rectangles(top_N, left_N, high_N * erased_N, wide_N, h, w)

    def _own_share(self, x_NHWC: Tensor, generator: torch.Generator) -> Tensor:
        """How much of each pixel stays the sample's own, [N, H, W, 1] or, for mixup, [N, 1, 1, 1].

        The rest is its partner's. Each sample has its own lambda. mixup (Zhang et al. 2018,
        arXiv:1710.09412) blends; CutMix (Yun et al. 2019, arXiv:1905.04899) pastes a rectangle, cut off
        at the frame, and what counts is the area that was pasted. With both on, a coin decides for
        each sample.
        """
        n, h, w, _ = x_NHWC.shape
        if not self._cutmix:
            return _wide(_beta(self._mixup, n, generator))
        side_N = (1 - _beta(self._cutmix, n, generator)).sqrt()
        high_N, wide_N = (side_N * h).round(), (side_N * w).round()
        top_N = (_uniform(n, 0, h, generator).floor() - high_N / 2).ceil()
        left_N = (_uniform(n, 0, w, generator).floor() - wide_N / 2).ceil()
        pasted_NHW1 = 1 - _rectangles(top_N, left_N, high_N, wide_N, h, w).to(torch.float32)
        if not self._mixup:
            return pasted_NHW1
        pastes_N = _uniform(n, 0, 1, generator) < 0.5
        return torch.where(_wide(pastes_N), pasted_NHW1, _wide(_beta(self._mixup, n, generator)))


# ---- draws and shapes


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator, device=generator.device) * (high - low) + low


def _beta(alpha: float, n: int, generator: torch.Generator) -> Tensor:
    """Draws of Beta(alpha, alpha). NumPy's, seeded from `generator`: torch's takes no generator."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    draws_N = np.random.default_rng(seed).beta(alpha, alpha, n).astype(np.float32)
    return torch.from_numpy(draws_N).to(generator.device)


def _rectangles(top_N: Tensor, left_N: Tensor, high_N: Tensor, wide_N: Tensor, h: int, w: int) -> Tensor:
    """mask_NHW1, true inside."""

    def within(start_N: Tensor, length_N: Tensor, side: int) -> Tensor:
        at = torch.arange(side, device=start_N.device)
        return (at >= start_N[:, None]) & (at < (start_N + length_N)[:, None])

    return (within(top_N, high_N, h)[:, :, None] & within(left_N, wide_N, w)[:, None, :])[..., None]
