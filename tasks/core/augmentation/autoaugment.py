"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719) and TrivialAugment (Müller and Hutter 2021, arXiv:2103.10158) on
whole batches: every image draws operations of its own.

Operations and their ranges are torchvision's, except that a picture is moved by a share of its side, not by pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.core.augmentation import colours
from tasks.core.augmentation.colours import WHITE
from tasks.core.augmentation.geometry import warp

MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
FACTORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": colours.brightness,
    "contrast": colours.contrast,
    "sharpness": colours.sharpness,
    "saturation": colours.saturation,
}
OPERATIONS = ("identity", *MOVES, *FACTORS, "posterize", "solarize", "autocontrast", "equalize")
COLOUR_ONLY = "saturation"


@dataclass(frozen=True)
class Ranges:
    """How far the operations go at magnitude 1, either way where there are two."""

    shear: float  # pixels a pixel
    translate: float  # share of the side
    rotate: float  # degrees
    factor: float  # to and from 1
    bits: int  # that posterize keeps
    drawn: bool  # whether the magnitude is drawn as well


RANDAUGMENT = Ranges(0.3, 0.45, 30.0, 0.9, 4, drawn=False)
TRIVIALAUGMENT = Ranges(0.99, 0.45, 135.0, 0.99, 2, drawn=True)


class AutoAugment:
    """`count` operations an image, one after another, each at `magnitude` (0..1) or drawn up to it."""

    def __init__(self, ranges: Ranges, count: int, magnitude: float) -> None:
        self._ranges, self._count, self._magnitude = ranges, count, min(1.0, magnitude)

    def __call__(self, x_NCHW: Tensor, fill: int, generator: torch.Generator) -> Tensor:
        """Other pictures, with what was uncovered filled.

        Args:
            x_NCHW: float32 grey levels 0..255.
            fill: a grey level.
            generator: on the same device.
        """
        n, channels = x_NCHW.shape[:2]
        names = [name for name in OPERATIONS if channels > 1 or name != COLOUR_ONLY]
        for _ in range(self._count):
            chosen_N = torch.randint(len(names), (n,), generator=generator, device=generator.device)
            draws_2N = torch.rand(2, n, generator=generator, device=generator.device)
            share_N = draws_2N[0] if self._ranges.drawn else torch.ones_like(draws_2N[0])
            size_N = share_N * self._magnitude
            signed_N = torch.where(draws_2N[1] < 0.5, -size_N, size_N)
            x_NCHW = self._operated(x_NCHW.clone(), fill, names, chosen_N, size_N, signed_N)
        return x_NCHW

    def _operated(
        self, x_NCHW: Tensor, fill: int, names: list[str], chosen_N: Tensor, size_N: Tensor, signed_N: Tensor
    ) -> Tensor:
        """Each operation on those images that have drawn it; all moves are one sampling."""
        ranges = self._ranges
        moved_N = (chosen_N >= names.index(MOVES[0])) & (chosen_N <= names.index(MOVES[-1]))
        rows = moved_N.nonzero()[:, 0]
        if len(rows):
            far = {name: signed_N[rows] * (chosen_N[rows] == names.index(name)) for name in MOVES}
            x_NCHW[rows] = self._moved(x_NCHW[rows] - fill, far) + fill
        for i, name in enumerate(names):
            rows = (chosen_N == i).nonzero()[:, 0]
            if name == "identity" or name in MOVES or not len(rows):
                continue
            mine_nCHW, size_n = x_NCHW[rows], size_N[rows]
            match name:
                case "posterize":
                    mine_nCHW = colours.posterize(mine_nCHW, 8 - (size_n * (8 - ranges.bits)).round())
                case "solarize":
                    mine_nCHW = colours.solarize(mine_nCHW, WHITE * (1 - size_n))
                case "autocontrast":
                    mine_nCHW = colours.autocontrast(mine_nCHW)
                case "equalize":
                    mine_nCHW = colours.equalize(mine_nCHW)
                case _:
                    mine_nCHW = FACTORS[name](mine_nCHW, 1 + signed_N[rows] * ranges.factor)
            x_NCHW[rows] = mine_nCHW
        return x_NCHW

    def _moved(self, x_NCHW: Tensor, far: dict[str, Tensor]) -> Tensor:
        h, w = x_NCHW.shape[2:]
        ranges = self._ranges
        radians_N = torch.deg2rad(far["rotate"] * ranges.rotate)
        cos_N, sin_N = radians_N.cos(), radians_N.sin()
        turn_N22 = torch.stack(
            [cos_N, far["shear_x"] * ranges.shear - sin_N, far["shear_y"] * ranges.shear + sin_N, cos_N], 1
        ).view(-1, 2, 2)
        move_N2 = torch.stack([far["translate_x"] * w, far["translate_y"] * h], 1) * ranges.translate
        return warp(x_NCHW, turn_N22, move_N2)
