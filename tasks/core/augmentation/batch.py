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

from tasks.core.augmentation.autoaugment import RANDAUGMENT, TRIVIALAUGMENT, AutoAugment
from tasks.core.augmentation.colours import brightness, contrast, hue, permute, saturation, wide
from tasks.core.augmentation.geometry import affine, mirror, shift
from tasks.core.data.inputs import ImageInput

SMALLEST_ZOOM = 0.1  # at strength 2 the lower end of the range could reach nothing
ERASED_AREA, ERASED_ASPECT = (0.02, 0.33), (0.3, 3.3)  # share of the image; height to width


class BatchAugment:
    """A policy, ready to be applied.

    `strength` (0..2) scales every range: angles, zoom, moves, crop (rounded to whole pixels), colours, the
    magnitudes of RandAugment and TrivialAugment, and the probability of erasing. Flips, permuted channels, mixup and
    cutmix know only on and off; at 0 all is off and only the normalisation stays.

    Args:
        policy: what `tasks.augment.resolve_policy` returns.
    """

    brings: frozenset[int] = frozenset()  # words, of `TextAugment`

    def __init__(self, policy: Mapping[str, Any], strength: float = 1.0) -> None:
        height, width, channels = policy["image_shape"]
        self.input = ImageInput((height, width, channels), policy["channel_mean"], policy["channel_std"])
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
        self._permutes = "permute_channels" in on
        self._automatic: list[AutoAugment] = []
        if "randaugment" in on:
            count = int(on["randaugment"]["operations"])
            self._automatic.append(AutoAugment(RANDAUGMENT, count, scaled("randaugment", "magnitude")))
        if "trivialaugment" in on:
            self._automatic.append(AutoAugment(TRIVIALAUGMENT, 1, scaled("trivialaugment", "magnitude")))
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
            fill_C = torch.full((x_NHWC.shape[3],), self.input.zero, dtype=torch.uint8, device=x_NHWC.device)
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
        if not self._colours and not self._hue and not self._permutes and not self._automatic:
            return x_NHWC
        x_NCHW = x_NHWC.permute(0, 3, 1, 2).contiguous()
        for change, spread in self._colours:
            x_NCHW = change(x_NCHW, _uniform(n, max(0.0, 1 - spread), 1 + spread, generator))
        if self._hue:
            x_NCHW = hue(x_NCHW, _uniform(n, -self._hue, self._hue, generator))
        if self._permutes:
            order_N3 = torch.rand(n, 3, generator=generator, device=generator.device).argsort(1)
            x_NCHW = permute(x_NCHW, order_N3)
        for automatic in self._automatic:
            x_NCHW = automatic(x_NCHW, self.input.zero, generator)
        return x_NCHW.permute(0, 2, 3, 1).contiguous()

    def _normalized(self, x_NHWC: Tensor) -> Tensor:
        """As `ImageInput.tensor`, in place."""
        return x_NHWC.sub_(self.input.zero).mul_(self.input.scale)

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
            return wide(_beta(self._mixup, n, generator))
        side_N = (1 - _beta(self._cutmix, n, generator)).sqrt()
        high_N, wide_N = (side_N * h).round(), (side_N * w).round()
        top_N = (_uniform(n, 0, h, generator).floor() - high_N / 2).ceil()
        left_N = (_uniform(n, 0, w, generator).floor() - wide_N / 2).ceil()
        kept_NHW1 = 1 - _rectangles(top_N, left_N, high_N, wide_N, h, w)
        if not self._mixup:
            return kept_NHW1
        cut_N = _uniform(n, 0, 1, generator) < 0.5
        return torch.where(wide(cut_N), kept_NHW1, wide(_beta(self._mixup, n, generator)))


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
