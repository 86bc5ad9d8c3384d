"""What moves pixels: flips, shifts, and everything that has to interpolate, on whole batches.

Images are N, H, W, C or, where the name says so, N, C, H, W.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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
    radians_N = torch.deg2rad(degrees_N)
    cos_N, sin_N = radians_N.cos() / zoom_N, radians_N.sin() / zoom_N
    turn_N22 = torch.stack([cos_N, -sin_N, sin_N, cos_N], 1).view(-1, 2, 2)
    turn_N22 = turn_N22 * (1 - 2 * flips_N2.to(torch.float32))[:, :, None]
    return warp(x_NHWC.permute(0, 3, 1, 2), turn_N22, move_N2).permute(0, 2, 3, 1).contiguous()


def warp(x_NCHW: Tensor, turn_N22: Tensor, move_N2: Tensor) -> Tensor:
    """One bilinear sampling, filled with 0: a pixel that lies at p, from the centre, after the picture was moved by
    `move_N2` (to the right, and down) comes from `turn_N22` times p. All in pixels."""
    h, w = x_NCHW.shape[2:]
    # grid_sample asks where in the input an output pixel comes from, with both sides 2 long.
    turn_N22 = turn_N22 * torch.tensor([[1, h / w], [w / h, 1]], device=turn_N22.device)
    # As affine_grid, which multiplies matrices for every pixel; sums of rows and columns do as well.
    right_NW = _centres(w, x_NCHW.device) - move_N2[:, :1] * (2 / w)
    down_NH = _centres(h, x_NCHW.device) - move_N2[:, 1:] * (2 / h)
    across_N2W, along_N2H = turn_N22[:, :, :1] * right_NW[:, None], turn_N22[:, :, 1:] * down_NH[:, None]
    grid_N2HW = across_N2W[:, :, None, :] + along_N2H[:, :, :, None]
    return F.grid_sample(x_NCHW, grid_N2HW.permute(0, 2, 3, 1), align_corners=False)


def _centres(side: int, device: torch.device) -> Tensor:
    """Where grid_sample puts the centres of a row of pixels, from -1 to 1."""
    return (2 * torch.arange(side, device=device) + 1) / side - 1
