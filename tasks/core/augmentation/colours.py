"""What changes colours, on whole batches, with a strength of its own for every image.

Float32 grey levels 0..255, a plane a channel (contiguous NCHW, several times faster here). Factor 1 leaves the picture
as it is, as in torchvision.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

WHITE = 255.0
LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as in torchvision


def brightness(x_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Towards black below 1, brighter above."""
    return (x_NCHW * wide(factor_N)).clamp_(0, WHITE)


def contrast(x_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Towards the picture's mean grey level below 1, away from it above."""
    mean_N111 = grey(x_NCHW).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean_N111, x_NCHW, wide(factor_N)).clamp_(0, WHITE)


def saturation(x_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Towards grey below 1, away from it above. RGB only."""
    return torch.lerp(grey(x_NCHW), x_NCHW, wide(factor_N)).clamp_(0, WHITE)


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


def permute(x_NCHW: Tensor, order_N3: Tensor) -> Tensor:
    """Let red, green and blue change places: channel i becomes what channel `order_N3[:, i]` was. RGB only."""
    return x_NCHW.gather(1, order_N3[:, :, None, None].expand_as(x_NCHW))


def sharpness(x_NCHW: Tensor, factor_N: Tensor) -> Tensor:
    """Towards a smoothed picture below 1, away from it above; the frame stays as it is."""
    channels = x_NCHW.shape[1]
    kernel = torch.ones(3, 3, device=x_NCHW.device)
    kernel[1, 1] = 5
    smooth = F.conv2d(x_NCHW, (kernel / kernel.sum()).expand(channels, 1, 3, 3), groups=channels)
    smooth_NCHW = x_NCHW.clone()
    smooth_NCHW[:, :, 1:-1, 1:-1] = smooth
    return torch.lerp(smooth_NCHW, x_NCHW, wide(factor_N)).clamp_(0, WHITE)


def posterize(x_NCHW: Tensor, bits_N: Tensor) -> Tensor:
    """Keep so many of the 8 bits of each level."""
    step_N111 = wide(2.0 ** (8 - bits_N))
    return (x_NCHW / step_N111).floor() * step_N111


def solarize(x_NCHW: Tensor, threshold_N: Tensor) -> Tensor:
    """Invert the levels from a threshold on."""
    return torch.where(x_NCHW >= wide(threshold_N), WHITE - x_NCHW, x_NCHW)


def autocontrast(x_NCHW: Tensor) -> Tensor:
    """Stretch each channel's levels to the whole range; a channel of one level stays as it is."""
    low, high = x_NCHW.amin((2, 3), keepdim=True), x_NCHW.amax((2, 3), keepdim=True)
    flat = high == low
    stretched = (x_NCHW - low) * (WHITE / torch.where(flat, 1.0, high - low))
    return torch.where(flat, x_NCHW, stretched)


def equalize(x_NCHW: Tensor) -> Tensor:
    """Spread each channel's levels so that all are about equally frequent, as PIL does."""
    n, c, h, w = x_NCHW.shape
    levels_NCP = x_NCHW.round().clamp(0, WHITE).long().view(n * c, h * w)
    counts_NCL = torch.zeros(n * c, 256, dtype=torch.long, device=x_NCHW.device)
    counts_NCL.scatter_add_(1, levels_NCP, torch.ones_like(levels_NCP))
    brightest = counts_NCL.gather(1, levels_NCP.amax(1, keepdim=True))
    step = torch.div(h * w - brightest, 255, rounding_mode="floor")
    below = counts_NCL.cumsum(1) - counts_NCL
    table = torch.div(below + step // 2, step.clamp(min=1), rounding_mode="floor").clamp(max=255)
    equal = table.gather(1, levels_NCP).to(x_NCHW.dtype)
    return torch.where(step == 0, levels_NCP.to(x_NCHW.dtype), equal).view(n, c, h, w)


def grey(x_NCHW: Tensor) -> Tensor:
    """x_N1HW"""
    if x_NCHW.shape[1] == 1:
        return x_NCHW
    red, green, blue = (x_NCHW[:, i : i + 1] for i in range(3))
    return red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]


def wide(x_N: Tensor) -> Tensor:
    return x_N[:, None, None, None]
