"""Texts by what stands next to each other.

tokens_NL: N texts of L tokens; D: `width`; K: classes.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.core.models.spec import Spec
from tasks.core.models.tables import Table

KERNELS = (1, 2, 3, 5)  # tokens that a convolution sees


class TextCNN(nn.Module):
    """Convolutions over rows of words, each over so many at once, and the most that each finds anywhere (Kim 2014,
    arXiv:1408.5882), with batch norm. They are convolutions of images one pixel wide, so that all that presses those
    presses these.

    Every text is followed by as many empty places as the longest kernel has, so that it is the same in any batch.
    """

    runs = 1

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.table = Table(spec.rows + 1, spec.width)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(spec.width, spec.width, (size, 1), bias=False),
                nn.BatchNorm2d(spec.width),
                nn.ReLU(),
            )
            for size in KERNELS
        )
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(len(KERNELS) * spec.width, spec.num_classes)

    def forward(self, tokens_NL: Tensor) -> Tensor:
        longest = max(KERNELS)
        rows_NL = self.table.rows(F.pad(tokens_NL, (longest - 1, longest)))
        x_NDL1 = self.table(rows_NL).transpose(1, 2).unsqueeze(3)
        found = [branch(x_NDL1).amax((2, 3)) for branch in self.branches]
        return cast(Tensor, self.head(self.dropout(torch.cat(found, 1))))
