"""Our own ResNet for small images.

x_NCHW: N images, C channels (1 grey, 3 RGB), H rows, W columns. K: classes.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.core.models.spec import Spec


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropped: float, batch_norm: bool) -> None:
        super().__init__()
        bias = not batch_norm
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)
        self.bn1 = _norm(outputs, batch_norm)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=bias)
        self.bn2 = _norm(outputs, batch_norm)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=bias), _norm(outputs, batch_norm)
            )
        self.dropped = dropped

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x_NCHW)))
        y = self.bn2(self.conv2(y))
        if self.training and self.dropped:
            y = _drop_samples(y, self.dropped)
        return F.relu(y + self.shortcut(x_NCHW))


def _norm(channels: int, batch_norm: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()


def _drop_samples(x_NCHW: Tensor, probability: float) -> Tensor:
    """Zeros for a share of the samples; the others grow, so that the expectation stays."""
    kept_N111 = torch.rand(len(x_NCHW), 1, 1, 1, device=x_NCHW.device) >= probability
    return x_NCHW * (kept_N111 / (1 - probability))


class SmallResNet(nn.Module):
    """A ResNet for small images: a stem, three stages of one block, each half as large and twice as
    wide as the one before, mean over the pixels, and a linear layer.

    Stochastic depth drops the last block's branch with the probability that is asked for, and those before
    less often, in even steps (Huang et al. 2016, arXiv:1603.09382).
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        width, dropped = spec.width, spec.stochastic_depth or 0.0
        norm = spec.batch_norm
        self.stem = nn.Sequential(
            nn.Conv2d(spec.image_shape[2], width, 3, 2, 1, bias=not norm), _norm(width, norm), nn.ReLU()
        )
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
