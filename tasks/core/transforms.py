"""Augmentation of whole batches, with draws of its own for every image, on the device that trains.

Images stay N, H, W, C (C is 1 for grey, 3 for RGB) until the end, which is both how a decoder gives
them and what `channels_last` means. Flips and crops alone copy bytes; as soon as pixels have to be
interpolated, everything that moves them is one bilinear sampling. What a moved picture uncovers, and
what is erased, takes the mean grey level, which is 0 after normalisation. Names carry shapes:
x_NHWC, factor_N; K is classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

WHITE = 255.0
LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as in torchvision
SMALLEST_ZOOM = 0.1  # at strength 2 the lower end of the range could reach nothing
ERASED_AREA, ERASED_ASPECT = (0.02, 0.33), (0.3, 3.3)  # share of the image; height to width


def normalize(x_NHWC: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """uint8 x_NHWC -> float32 x_NCHW (channels_last): (x - zero) * scale of `pixel_scale`."""
    zero, scale = pixel_scale(mean, std)
    return (x_NHWC.permute(0, 3, 1, 2).to(torch.float32) - zero) * scale


def pixel_scale(mean: list[float], std: list[float]) -> tuple[int, float]:
    """The one `zero` (a grey level) and `scale` with which all channels are normalised.

    `mean` and `std` are one number a channel for pixels in 0..1. Because zero is a whole grey level
    and no channel has its own, an image is already what quantization calls a uint8 tensor with a
    zero point and a scale: an int8 graph takes it as it is, and a float one needs one operator.
    Batch norm, which follows, sees to the channels' differences. Without any variation scale is 0.
    """
    zero = round(WHITE * sum(mean) / len(mean))
    variance = sum(s * s + (m - zero / WHITE) ** 2 for m, s in zip(mean, std, strict=True)) / len(mean)
    return zero, 1 / (WHITE * math.sqrt(variance)) if variance else 0.0


# ---- what moves pixels


def mirror(x_NHWC: Tensor, flipped_N: Tensor, axis: int) -> Tensor:
    """Reverse the samples where `flipped_N` along `axis` (1 upside down, 2 left to right)."""
    n = len(x_NHWC)
    both = torch.cat([x_NHWC, x_NHWC.flip(axis)])  # then picking whole images is a plain copy of bytes
    return both.index_select(0, torch.arange(n, device=x_NHWC.device) + n * flipped_N)


def shift(x_NHWC: Tensor, down_N: Tensor, right_N: Tensor, most: int, fill_C: Tensor) -> Tensor:
    """Move each picture by whole pixels, at most `most`, and fill up: a crop of the padded picture."""
    n, h, w, c = x_NHWC.shape
    padded_w = w + 2 * most
    row, size = padded_w * c, (h + 2 * most) * padded_w * c
    # A crop is one run of `h` padded rows in memory, of which the last columns are not wanted: so an
    # image is one copy, not `h` of them. One image more, since the last one's run may end beyond it.
    memory = fill_C.repeat(size // c).repeat(n + 1)
    memory[: n * size].view(n, h + 2 * most, padded_w, c)[:, most : most + h, most : most + w] = x_NHWC
    start_N = torch.arange(n, device=x_NHWC.device) * size + (most - down_N) * row + (most - right_N) * c
    runs = memory.unfold(0, h * row, 1).index_select(0, start_N)
    return runs.view(n, h, padded_w, c)[:, :, :w]


def affine(x_NHWC: Tensor, degrees_N: Tensor, zoom_N: Tensor, flips_N2: Tensor, move_N2: Tensor) -> Tensor:
    """Flip, then rotate about the centre and zoom, then move: one bilinear sampling, filled with 0.

    Args:
        x_NHWC: float32.
        degrees_N: counter-clockwise.
        zoom_N: above 1 enlarges.
        flips_N2: whether to flip left to right, and upside down.
        move_N2: pixels to the right, and down; fractions are allowed.
    """
    _, h, w, _ = x_NHWC.shape
    radians_N = torch.deg2rad(degrees_N)
    cos_N, sin_N = radians_N.cos() / zoom_N, radians_N.sin() / zoom_N
    # grid_sample asks where in the input an output pixel comes from, with both sides 2 long.
    turn_N22 = torch.stack([cos_N, -sin_N * (h / w), sin_N * (w / h), cos_N], 1).view(-1, 2, 2)
    turn_N22 = turn_N22 * (1 - 2 * flips_N2.to(torch.float32))[:, :, None]
    # As affine_grid, which multiplies matrices for every pixel; sums of rows and columns do as well.
    right_NW = _centres(w, x_NHWC.device) - move_N2[:, :1] * (2 / w)
    down_NH = _centres(h, x_NHWC.device) - move_N2[:, 1:] * (2 / h)
    across_N2W, along_N2H = turn_N22[:, :, :1] * right_NW[:, None], turn_N22[:, :, 1:] * down_NH[:, None]
    grid_N2HW = across_N2W[:, :, None, :] + along_N2H[:, :, :, None]
    moved_NCHW = F.grid_sample(x_NHWC.permute(0, 3, 1, 2), grid_N2HW.permute(0, 2, 3, 1), align_corners=False)
    return moved_NCHW.permute(0, 2, 3, 1).contiguous()


# ---- colour: float32 grey levels 0..255, a plane a channel (contiguous NCHW, several times faster here)
# Factor 1 leaves the picture as it is, as in torchvision.


def brightness(x_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Towards black below 1, brighter above."""
    return (x_NCHW * _wide(factor_N)).clamp_(0, WHITE)


def contrast(x_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Towards the picture's mean grey level below 1, away from it above."""
    mean_N111 = _grey(x_NCHW).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean_N111, x_NCHW, _wide(factor_N)).clamp_(0, WHITE)


def saturation(x_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Towards grey below 1, away from it above. RGB only."""
    return torch.lerp(_grey(x_NCHW), x_NCHW, _wide(factor_N)).clamp_(0, WHITE)


def hue(x_NCHW: Tensor, turn_N: Tensor) -> Tensor:
    """Turn the hue by `turn_N`, where 1 is once around the colour circle. RGB only.

    To HSV and back; the way back is the closed form of https://en.wikipedia.org/wiki/HSL_and_HSV.
    """
    red, green, blue = x_NCHW.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    safe = chroma.clamp(min=1e-6)  # a grey pixel has no hue: any will do
    sixth = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = sixth + 6 * turn_N[:, None, None]
    turned_NCHW = torch.empty_like(x_NCHW)
    for channel, offset in enumerate((5, 3, 1)):
        k = turned + offset
        k -= 6 * torch.floor(k / 6)
        torch.sub(value, chroma * torch.minimum(k, 4 - k).clamp_(0, 1), out=turned_NCHW[:, channel])
    return turned_NCHW


def _grey(x_NCHW: Tensor) -> Tensor:
    """x_N1HW"""
    if x_NCHW.shape[1] == 1:
        return x_NCHW
    red, green, blue = (x_NCHW[:, i : i + 1] for i in range(3))
    return red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]


def _wide(x_N: Tensor) -> Tensor:
    return x_N[:, None, None, None]


# ---- all together


class BatchAugment:
    """A policy, ready to be applied.

    `strength` (0..2) scales every range: angles, zoom, moves, crop (rounded to whole pixels), colours,
    and the probability of erasing. Flips, mixup and cutmix know only on and off; at 0 all is off and
    only the normalisation stays.

    Args:
        policy: what `tasks.augment.resolve_policy` returns.
    """

    def __init__(self, policy: Mapping[str, Any], strength: float = 1.0) -> None:
        self.mean: list[float] = policy["channel_mean"]
        self.std: list[float] = policy["channel_std"]
        on: Mapping[str, Mapping[str, float]] = policy["operations"] if strength > 0 else {}

        def scaled(name: str, key: str) -> float:
            return on.get(name, {}).get(key, 0.0) * strength

        self._flips = ("flip_horizontal" in on, "flip_vertical" in on)
        self._crop = math.floor(scaled("crop", "pixels") + 0.5)
        self._degrees, self._zoom = scaled("affine", "rotate"), scaled("affine", "scale")
        self._move = scaled("affine", "translate")
        self._interpolates = bool(self._degrees or self._zoom or self._move)
        changes = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        self._colours = [(change, scaled(name, "range")) for name, change in changes.items() if name in on]
        self._hue = min(0.5, scaled("hue", "range"))
        self._erase = min(1.0, scaled("erase", "probability"))
        self._mixup = on.get("mixup", {}).get("alpha", 0.0)
        self._cutmix = on.get("cutmix", {}).get("alpha", 0.0)

    def __call__(
        self, x_NHWC: Tensor, labels_N: Tensor, generator: torch.Generator, num_classes: int
    ) -> tuple[Tensor, Tensor]:
        """Augmented and normalised images, and their targets.

        Args:
            x_NHWC: uint8.
            labels_N: int64.
            generator: on the same device; its state alone decides what is drawn.

        Returns:
            x_NCHW, float32, channels_last, and targets_NK, float32, rows adding up to 1: one-hot, or
            mixed as the images are.
        """
        n, draws = len(labels_N), generator
        targets_NK = torch.zeros(n, num_classes, device=x_NHWC.device).scatter_(1, labels_N[:, None], 1.0)
        flips_N2 = torch.rand(n, 2, generator=draws, device=draws.device) < 0.5
        crop_N2 = torch.randint(-self._crop, self._crop + 1, (n, 2), generator=draws, device=draws.device)
        if not self._interpolates:
            x_NHWC = self._moved(x_NHWC, flips_N2, crop_N2)
        x_NHWC = x_NHWC.to(torch.float32, memory_format=torch.contiguous_format)
        x_NHWC = self._normalized(self._coloured(x_NHWC, draws))
        if self._interpolates:
            x_NHWC = self._sampled(x_NHWC, flips_N2, crop_N2, draws)
        if self._erase:
            x_NHWC = x_NHWC * (1 - self._holes(x_NHWC, draws))
        if self._mixup or self._cutmix:
            own_NHW1 = self._own_share(x_NHWC, draws)
            partner_N = torch.randperm(n, generator=draws, device=draws.device)
            x_NHWC = torch.lerp(x_NHWC.index_select(0, partner_N), x_NHWC, own_NHW1)
            targets_NK = torch.lerp(targets_NK[partner_N], targets_NK, own_NHW1.mean((1, 2)))
        return x_NHWC.permute(0, 3, 1, 2), targets_NK

    def _moved(self, x_NHWC: Tensor, flips_N2: Tensor, crop_N2: Tensor) -> Tensor:
        for on, flipped_N, axis in zip(self._flips, flips_N2.unbind(1), (2, 1), strict=True):
            if on:
                x_NHWC = mirror(x_NHWC, flipped_N, axis)
        if self._crop:
            zero, _ = pixel_scale(self.mean, self.std)
            fill_C = torch.full((x_NHWC.shape[3],), zero, dtype=torch.uint8, device=x_NHWC.device)
            x_NHWC = shift(x_NHWC, crop_N2[:, 1], crop_N2[:, 0], self._crop, fill_C)
        return x_NHWC

    def _sampled(
        self, x_NHWC: Tensor, flips_N2: Tensor, crop_N2: Tensor, generator: torch.Generator
    ) -> Tensor:
        n, h, w, _ = x_NHWC.shape
        right_N = _uniform(n, -self._move * w, self._move * w, generator)
        down_N = _uniform(n, -self._move * h, self._move * h, generator)
        return affine(
            x_NHWC,
            _uniform(n, -self._degrees, self._degrees, generator),
            _uniform(n, max(SMALLEST_ZOOM, 1 - self._zoom), 1 + self._zoom, generator),
            flips_N2 & torch.tensor(self._flips, device=x_NHWC.device),
            crop_N2 + torch.stack([right_N, down_N], 1),
        )

    def _coloured(self, x_NHWC: Tensor, generator: torch.Generator) -> Tensor:
        n = len(x_NHWC)
        if not self._colours and not self._hue:
            return x_NHWC
        x_NCHW = x_NHWC.permute(0, 3, 1, 2).contiguous()
        for change, spread in self._colours:
            x_NCHW = change(x_NCHW, _uniform(n, max(0.0, 1 - spread), 1 + spread, generator))
        if self._hue:
            x_NCHW = hue(x_NCHW, _uniform(n, -self._hue, self._hue, generator))
        return x_NCHW.permute(0, 2, 3, 1).contiguous()

    def _normalized(self, x_NHWC: Tensor) -> Tensor:
        """As `normalize`, in place."""
        zero, scale = pixel_scale(self.mean, self.std)
        return x_NHWC.sub_(zero).mul_(scale)

    def _holes(self, x_NHWC: Tensor, generator: torch.Generator) -> Tensor:
        """mask_NHW1, 1 inside, of random erasing (Zhong et al. 2017, arXiv:1708.04896).

        Area and aspect as in torchvision. Where the paper draws again until the rectangle fits, its
        sides are cut to the image's.
        """
        n, h, w, _ = x_NHWC.shape
        area_N = _uniform(n, ERASED_AREA[0], ERASED_AREA[1], generator) * (h * w)
        # On a log scale, so that high and wide are equally likely.
        low, high = (math.log(aspect) for aspect in ERASED_ASPECT)
        aspect_N = _uniform(n, low, high, generator).exp()
        high_N = (area_N * aspect_N).sqrt().round().clamp(1, h)
        wide_N = (area_N / aspect_N).sqrt().round().clamp(1, w)
        top_N = (_uniform(n, 0, 1, generator) * (h - high_N + 1)).floor()
        left_N = (_uniform(n, 0, 1, generator) * (w - wide_N + 1)).floor()
        erased_N = _uniform(n, 0, 1, generator) < self._erase
        return _rectangles(top_N, left_N, high_N * erased_N, wide_N, h, w)

    def _own_share(self, x_NHWC: Tensor, generator: torch.Generator) -> Tensor:
        """How much of each pixel stays the image's own, [N, H, W, 1] or, for mixup, [N, 1, 1, 1].

        The rest is its partner's; each image has its own lambda. mixup (Zhang et al. 2018,
        arXiv:1710.09412) blends. CutMix (Yun et al. 2019, arXiv:1905.04899) pastes a rectangle, cut off
        at the frame, and what counts is the area that was pasted. With both on, each image tosses a
        coin.
        """
        n, h, w, _ = x_NHWC.shape
        if not self._cutmix:
            return _wide(_beta(self._mixup, n, generator))
        side_N = (1 - _beta(self._cutmix, n, generator)).sqrt()
        high_N, wide_N = (side_N * h).round(), (side_N * w).round()
        top_N = (_uniform(n, 0, h, generator).floor() - high_N / 2).ceil()
        left_N = (_uniform(n, 0, w, generator).floor() - wide_N / 2).ceil()
        kept_NHW1 = 1 - _rectangles(top_N, left_N, high_N, wide_N, h, w)
        if not self._mixup:
            return kept_NHW1
        cut_N = _uniform(n, 0, 1, generator) < 0.5
        return torch.where(_wide(cut_N), kept_NHW1, _wide(_beta(self._mixup, n, generator)))


# ---- draws and shapes


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator, device=generator.device) * (high - low) + low


def _beta(alpha: float, n: int, generator: torch.Generator) -> Tensor:
    """Draws of Beta(alpha, alpha). NumPy's, seeded from `generator`: torch's takes no generator."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    draws_N = np.random.default_rng(seed).beta(alpha, alpha, n).astype(np.float32)
    return torch.from_numpy(draws_N).to(generator.device)


def _rectangles(top_N: Tensor, left_N: Tensor, high_N: Tensor, wide_N: Tensor, h: int, w: int) -> Tensor:
    """mask_NHW1, float32: 1 inside, 0 outside."""

    def within(start_N: Tensor, length_N: Tensor, side: int) -> Tensor:
        at = torch.arange(side, device=start_N.device)
        return ((at >= start_N[:, None]) & (at < (start_N + length_N)[:, None])).to(torch.float32)

    # An outer product of floats is vectorised; `and` of bytes is not, and takes four times as long.
    return (within(top_N, high_N, h)[:, :, None] * within(left_N, wide_N, w)[:, None, :])[..., None]


def _centres(side: int, device: torch.device) -> Tensor:
    """Where grid_sample puts the centres of a row of pixels, from -1 to 1."""
    return (2 * torch.arange(side, device=device) + 1) / side - 1
