"""What stands for words in a network: rows of a table, found by the hashes of tokens and of runs of tokens.

tokens_NL: int64, the hash of each token, 0 behind the last; keys_NG: what rows are found by; rows_NG: their numbers; D: numbers
of a row.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.core.data.texts import Tokens

# The key of two tokens is FACTOR times the first and the second, of which KEY_MASK keeps 35 bits: hardly ever the same for
# others (of a pair that no row stands for, once in 700,000 where there are 50,000), and five bytes of a model's file.
FACTOR = 0x1E3779B1
KEY_MASK = (1 << 35) - 1
SPREAD = 0.1  # of a new table's numbers
LEAST_TIMES = 2  # that the texts for training hold a run, or it has no row


@torch.library.custom_op("modelpress::lookup", mutates_args=())
def lookup(keys_V: Tensor, keys_NG: Tensor) -> Tensor:
    """rows_NG: 1 + where each is in keys_V, which ascend, and 0 where it is not. One LabelEncoder of ONNX."""
    at_NG = torch.searchsorted(keys_V, keys_NG.contiguous()).clamp_(max=max(0, len(keys_V) - 1))
    if not len(keys_V):
        return torch.zeros_like(keys_NG)
    return (at_NG + 1) * (keys_V[at_NG] == keys_NG)


@lookup.register_fake
def _(keys_V: Tensor, keys_NG: Tensor) -> Tensor:
    return torch.empty_like(keys_NG)


class Table(nn.Embedding):
    """A row for each of `keys_V`; row 0, of zeros, for all that has none."""

    keys: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx=0)
        self.register_buffer("keys", torch.zeros(num_embeddings - 1, dtype=torch.int64))

    @torch.no_grad()
    def keep(self, stays: Tensor) -> None:
        """Leave those rows alone, in place, of which the first stays."""
        self.weight = nn.Parameter(self.weight[stays.to(self.weight.device)])
        self.keys = self.keys[stays[1:].to(self.keys.device)]
        self.num_embeddings = len(self.weight)

    @torch.no_grad()
    def add(self, keys: Tensor, most: int) -> None:
        """Rows of zeros, in place, for those of these keys that have none, the first ones, as far as there are no more than `most`
        then. Until something is learned of it, such a word is as one that nobody knows."""
        room = max(0, most - len(self.keys))
        new = keys[~torch.isin(keys, self.keys)][:room]
        every = torch.cat([self.keys, new])
        order = every.argsort()
        rows = torch.cat([self.weight[1:], self.weight.new_zeros(len(new), self.embedding_dim)])
        self.weight = nn.Parameter(torch.cat([self.weight[:1], rows[order]]))
        self.keys = every[order]
        self.num_embeddings = len(self.weight)

    @torch.no_grad()
    def take(self, keys: Tensor, weight: Tensor) -> int:
        """Copy the rows of a table with these keys, which ascend, for those that have one here; how many."""
        rows = lookup(keys, self.keys)
        there = rows > 0
        self.weight[1:][there] = weight[rows[there]]
        return int(there.sum())

    def rows(self, keys_NG: Tensor) -> Tensor:
        """rows_NG."""
        return cast(Tensor, torch.ops.modelpress.lookup(self.keys, keys_NG))

    def forward(self, rows_NG: Tensor) -> Tensor:
        """[N, G, D]"""
        return F.embedding(rows_NG, self.weight, self.padding_idx)


def pairs(tokens_NL: Tensor) -> Tensor:
    """The keys of each two tokens that follow each other, the last one with nothing among them: [N, L]. Behind a text stand
    zeros, also where it is the longest."""
    following_NL = F.pad(tokens_NL, (-1, 1))
    return (tokens_NL * FACTOR + following_NL) & KEY_MASK


def _keys(tokens: Tokens, runs: int) -> npt.NDArray[np.int64]:
    """Of all single tokens, and of all pairs where `runs` is 2."""
    flat = tokens.packed().astype(np.int64)
    if runs == 1 or not len(flat):
        return flat
    following = np.append(flat[1:], 0)
    ends = np.cumsum(tokens.lengths_N[tokens.lengths_N > 0]) - 1
    following[ends] = 0
    return np.concatenate([flat, (flat * FACTOR + following) & KEY_MASK])


def _runs(model: nn.Module) -> int:
    return cast(int, getattr(model, "runs", 1))


def usage(model: nn.Module, tokens: Tokens | None) -> dict[str, Tensor]:
    """In how many places of these texts each row of a table stands [rows], by the table's name; row 0 is of all that has none."""
    if tokens is None:
        return {}
    keys = torch.from_numpy(_keys(tokens, _runs(model)))
    return {
        name: torch.bincount(lookup(table.keys.cpu(), keys), minlength=table.num_embeddings)
        for name, table in model.named_modules()
        if isinstance(table, Table)
    }


def most_frequent(tokens: Tokens, runs: int, rows: int) -> npt.NDArray[np.int64]:
    """The keys, ascending, of those single tokens and pairs (`runs` is 2) that stand in the most places, at most so many."""
    found, times = np.unique(_keys(tokens, runs), return_counts=True)
    kept = np.flatnonzero((times >= LEAST_TIMES) & (found != 0))
    if not len(kept):
        kept = np.flatnonzero(found != 0)
    chosen = kept[np.lexsort((found[kept], -times[kept]))][:rows]
    return np.sort(found[chosen])


def adopt(model: nn.Module, tokens: Tokens | None) -> None:
    """Give the tables of `model`, in place, rows for what stands in these texts, so many as its spec asks for at most."""
    for name, table in list(model.named_modules()):
        if isinstance(table, Table) and tokens is not None:
            keys = most_frequent(tokens, _runs(model), table.num_embeddings - 1)
            fitting = Table(len(keys) + 1, table.embedding_dim)
            fitting.keys.copy_(torch.from_numpy(keys))
            nn.init.normal_(fitting.weight, std=SPREAD)
            with torch.no_grad():
                fitting.weight[0] = 0
            model.set_submodule(name, fitting)


def add_rows(model: nn.Module, keys: Collection[int], most: int) -> None:
    """Give the tables of `model`, in place, rows for those of these keys that have none, see `Table.add`."""
    for table in model.modules():
        if isinstance(table, Table):
            table.add(torch.tensor(sorted(keys), dtype=torch.int64), most)
