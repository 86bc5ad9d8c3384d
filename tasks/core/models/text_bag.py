"""Texts as bags of words and pairs of words.

tokens_NL: N texts of L tokens; D: `width`; K: classes.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from tasks.core.models.spec import Spec
from tasks.core.models.tables import Table, pairs


class TextBag(nn.Module):
    """The mean of a row a word and a row a pair, and a linear layer: fastText (Joulin et al. 2016, arXiv:1607.01759), with a
    vocabulary instead of buckets, so that rows can leave."""

    runs = 2

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.table = Table(spec.rows + 1, spec.width)
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(spec.width, spec.num_classes)

    def forward(self, tokens_NL: Tensor) -> Tensor:
        rows_NG = self.table.rows(torch.cat([tokens_NL, pairs(tokens_NL)], 1))
        known_N1 = rows_NG.sign().sum(1, keepdim=True).clamp(min=1)
        y_ND = self.table(rows_NG).sum(1) / known_N1
        return cast(Tensor, self.head(self.dropout(y_ND)))
