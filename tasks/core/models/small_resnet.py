"""Our own ResNet for small images.

x_NCHW: N images, C channels (1 grey, 3 RGB), H rows, W columns. K: classes.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.core.models.spec import Spec

TINY, LARGE = 16, 80  # pixels of the shorter side


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropped: float, batch_norm: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_norm(inputs, outputs, stride, batch_norm)
        self.conv2, self.bn2 = conv_norm(outputs, outputs, 1, batch_norm)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=not batch_norm), _norm(outputs, batch_norm)
            )
        self.dropped = dropped

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x_NCHW)))
        y = self.bn2(self.conv2(y))
        if self.training and self.dropped:
            y = _drop_samples(y, self.dropped)
        return F.relu(y + self.shortcut(x_NCHW))


def conv_norm(inputs: int, outputs: int, stride: int, batch_norm: bool) -> tuple[nn.Conv2d, nn.Module]:
    """A 3x3 convolution, and the norm after it, if any."""
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=not batch_norm), _norm(outputs, batch_norm)


def _norm(channels: int, batch_norm: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()


def _drop_samples(x_NCHW: Tensor, probability: float) -> Tensor:
    """Zeros for a share of the samples; the others grow, so that the expectation stays."""
    kept_N111 = torch.rand(len(x_NCHW), 1, 1, 1, device=x_NCHW.device) >= probability
    return x_NCHW * (kept_N111 / (1 - probability))


class SmallResNet(nn.Module):
    """A ResNet for small images: a stem, three stages of one block, each half as large and twice as
    wide as the one before, mean over the pixels, and a linear layer.

    The stem halves the image, but not below TINY pixels; above LARGE it halves it twice, the second time by max
    pooling, as larger ResNets do.

    Stochastic depth drops the last block's branch with the probability that is asked for, and those before
    less often, in even steps (Huang et al. 2016, arXiv:1603.09382).
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        width, dropped = spec.width, spec.stochastic_depth or 0.0
        norm, side = spec.batch_norm, min(spec.pixels[:2])
        stem = [*conv_norm(spec.pixels[2], width, 1 if side < TINY else 2, norm), nn.ReLU()]
        self.stem = nn.Sequential(*stem, *([nn.MaxPool2d(3, 2, 1)] if side > LARGE else []))
        self.blocks = nn.Sequential(
            BasicBlock(width, width, 1, dropped / 3, norm),
            BasicBlock(width, 2 * width, 2, dropped * 2 / 3, norm),
            BasicBlock(2 * width, 4 * width, 2, dropped, norm),
        )
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(4 * width, spec.num_classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y = self.blocks(self.stem(x_NCHW))
        return cast(Tensor, self.head(self.dropout(y.mean((2, 3)))))
