"""Texts by which words look at each other.

tokens_NL: N texts of L tokens; D: `width`; H: heads; E: what a head puts out for a token; K: classes.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.core.models.spec import Spec
from tasks.core.models.tables import Table

BLOCKS = 2
HEAD = 32  # E
HIDDEN = 2  # times the width, between the two layers that follow a head
UNSEEN = -1e4  # what stands for the product with a key of nothing
SLOWEST = 1e-3  # radians a token, of the last of the pairs of numbers that turn


class TextTransformer(nn.Module):
    """An encoder (Vaswani et al. 2017, arXiv:1706.03762) with rotary positions (Su et al. 2021, arXiv:2104.09864), and the mean
    over a text's tokens.

    Linear layers are convolutions of images one pixel wide, so that all that presses those presses these; and each ends in a
    batch norm in place of a layer norm in front of it, which folds into it: an int8 graph has no statistics to compute.
    """

    runs = 1

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.table = Table(spec.rows + 1, spec.width)
        self.positions = Positions()
        self.blocks = nn.ModuleList(Block(spec.width) for _ in range(BLOCKS))
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(spec.width, spec.num_classes)

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """logits_NK."""
        tokens_NL = F.pad(tokens_NL, (0, 1))  # nothing is a place, too
        nothing_NL = tokens_NL == 0
        turns = self.positions(nothing_NL)
        x_NDL1 = self.table(self.table.rows(tokens_NL)).transpose(1, 2).unsqueeze(3)
        for block in self.blocks:
            x_NDL1 = block(x_NDL1, turns, nothing_NL)
        x_NLD = x_NDL1.squeeze(3).transpose(1, 2).masked_fill(nothing_NL.unsqueeze(2), 0.0)
        count_N1 = (~nothing_NL).float().sum(1, keepdim=True).clamp(min=1)
        return cast(Tensor, self.head(self.dropout(x_NLD.sum(1) / count_N1)))


class Positions(nn.Module):
    """By how much a pair of numbers turns at each token: the first by a radian a token, each of the following by less."""

    turn: Tensor

    def __init__(self) -> None:
        super().__init__()
        turn_E = SLOWEST ** (torch.arange(HEAD // 2) / (HEAD // 2 - 1))
        self.register_buffer("turn", turn_E.repeat(2))  # of a query, and of a key

    def forward(self, nothing_NL: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, [N, L, 1, E]. Both hold the factor that keeps products of queries and keys near one."""
        place_NL = (~nothing_NL).float().cumsum(1)
        angle_NL1E = place_NL[:, :, None, None] * self.turn
        return angle_NL1E.cos() * HEAD**-0.25, angle_NL1E.sin() * HEAD**-0.25


class Block(nn.Module):
    """What each token makes of the others, then of itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = Attention(width)
        self.mlp = nn.Sequential(
            nn.Conv2d(width, HIDDEN * width, 1, bias=False),
            nn.BatchNorm2d(HIDDEN * width),
            nn.ReLU(),
            nn.Conv2d(HIDDEN * width, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x_NDL1: Tensor, turns: tuple[Tensor, Tensor], nothing_NL: Tensor) -> Tensor:
        x_NDL1 = x_NDL1 + self.attention(x_NDL1, turns, nothing_NL)
        return cast(Tensor, x_NDL1 + self.mlp(x_NDL1))


class Attention(nn.Module):
    """As many heads as the width has room for. The channels of `given` are those of one head after another, so that heads
    can leave: the first halves of its query and key, the second ones, and its value."""

    def __init__(self, width: int) -> None:
        super().__init__()
        heads = max(1, width // HEAD)
        self.given = nn.Sequential(
            nn.Conv2d(width, 3 * heads * HEAD, 1, bias=False), nn.BatchNorm2d(3 * heads * HEAD)
        )
        self.gives = nn.Sequential(nn.Conv2d(heads * HEAD, width, 1, bias=False), nn.BatchNorm2d(width))

    @property
    def heads(self) -> int:
        """How many there are."""
        return cast(nn.Conv2d, self.given[0]).out_channels // (3 * HEAD)

    def forward(self, x_NDL1: Tensor, turns: tuple[Tensor, Tensor], nothing_NL: Tensor) -> Tensor:
        """x_NDL1, what each token gets from those it looks at."""
        given_NLHC = self.given(x_NDL1).squeeze(3).transpose(1, 2).unflatten(2, (-1, 3 * HEAD))
        first_NLHE, second_NLHE, value_NLHE = given_NLHC.split(HEAD, 3)
        cos_NL1E, sin_NL1E = turns
        first_NLHE, second_NLHE = (
            first_NLHE * cos_NL1E - second_NLHE * sin_NL1E,
            first_NLHE * sin_NL1E + second_NLHE * cos_NL1E,
        )
        query_first, key_first = first_NLHE.split(HEAD // 2, 3)
        query_second, key_second = second_NLHE.split(HEAD // 2, 3)
        query_NLHE = torch.cat([query_first, query_second], 3)
        key_NLHE = torch.cat([key_first, key_second], 3)
        scores_NHLL = query_NLHE.transpose(1, 2) @ key_NLHE.permute(0, 2, 3, 1)
        scores_NHLL = scores_NHLL.masked_fill(nothing_NL[:, None, None], UNSEEN)
        seen_NHLE = scores_NHLL.softmax(3) @ value_NLHE.transpose(1, 2)
        seen_NCL1 = seen_NHLE.transpose(1, 2).flatten(2).transpose(1, 2).unsqueeze(3)
        return cast(Tensor, self.gives(seen_NCL1))
