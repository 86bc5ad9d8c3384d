"""Augmentation of whole batches of texts, by their tokens: every text draws changes of its own, anew each time.

Easy data augmentation (Wei and Zou 2019, arXiv:1901.11196: synonyms, insertion, swap, deletion), sentences in another order,
and tokens that nobody knows. Where a text has fewer tokens than SHORTEST it stays as it is.

tokens_NL: int64 hashes, 0 behind the last; S: sentences; W: words with synonyms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.core.data.inputs import TextInput
from tasks.core.data.tokens import hashes_of

SHORTEST = 4  # tokens
UNKNOWN = -1  # a token that no vocabulary has


class TextAugment:
    """A policy, ready to be applied. `strength` (0..2) scales the share of the words that change, and how often sentences
    change places; at 0 all is off.

    Args:
        policy: what `policy.resolve_policy` returns for texts.

    Attributes:
        brings: the hashes of words that it puts into texts.
    """

    def __init__(self, policy: Mapping[str, Any], strength: float = 1.0) -> None:
        self.input = TextInput(policy["longest"], policy["typical"])
        on = policy["operations"] if strength > 0 else {}
        self._share = {name: min(1.0, values["share"] * strength) for name, values in on.items()}
        hashes = hashes_of(
            sorted({w for word, others in policy["synonyms"].items() for w in (word, *others)})
        )
        words = sorted(
            (hashes[word], [hashes[w] for w in others]) for word, others in policy["synonyms"].items()
        )
        self._words_W = torch.tensor([word for word, _ in words], dtype=torch.int64)
        self._counts_W = torch.tensor([len(others) for _, others in words], dtype=torch.int64)
        self._starts_W = self._counts_W.cumsum(0) - self._counts_W
        self._synonyms = torch.tensor([other for _, others in words for other in others], dtype=torch.int64)
        brings = not self._share.keys().isdisjoint(("synonyms", "insert"))
        self.brings: frozenset[int] = frozenset(self._synonyms.tolist() if brings else ())
        self._ends = torch.tensor(policy["sentence_ends"], dtype=torch.int64)

    def __call__(
        self, tokens_NL: Tensor, labels_N: Tensor, generator: torch.Generator, num_classes: int
    ) -> tuple[Tensor, Tensor]:
        """Changed texts, and their targets.

        Args:
            generator: on the same device; its state alone decides what is drawn.

        Returns:
            tokens_NL, which may be longer by what was inserted, and targets_NK, float32, one-hot.
        """
        targets_NK = F.one_hot(labels_N, num_classes).float()
        draws = _Draws(generator)
        if share := self._share.get("shuffle_sentences"):
            tokens_NL = self._shuffled(tokens_NL, draws, share)
        if share := self._share.get("synonyms"):
            other_NL = self._synonym(tokens_NL, draws)
            chosen_NL = draws.some(tokens_NL, share, 1, other_NL != tokens_NL)
            tokens_NL = torch.where(chosen_NL, other_NL, tokens_NL)
        if share := self._share.get("insert"):
            tokens_NL = self._inserted(tokens_NL, draws, share)
        if share := self._share.get("swap"):
            tokens_NL = _swapped(tokens_NL, draws.some(tokens_NL, share, 2), draws)
        if share := self._share.get("delete"):
            gone_NL = draws.chosen(tokens_NL, share)
            gone_NL[:, 0] = False  # something is left of every text
            tokens_NL = _compact(torch.where(gone_NL, 0, tokens_NL))
        if share := self._share.get("token_dropout"):
            tokens_NL = torch.where(draws.chosen(tokens_NL, share), UNKNOWN, tokens_NL)
        return tokens_NL[:, : max(1, self.input.longest)], targets_NK

    def _synonym(self, tokens_NL: Tensor, draws: _Draws) -> Tensor:
        """For each token one of its synonyms, or itself where it has none."""
        if not len(self._words_W):
            return tokens_NL
        words_W = self._words_W.to(tokens_NL.device)
        at_NL = torch.searchsorted(words_W, tokens_NL.contiguous()).clamp_(max=len(words_W) - 1)
        counts_NL = self._counts_W.to(tokens_NL.device)[at_NL]
        drawn_NL = (draws.uniform(tokens_NL.shape) * counts_NL).long().clamp_(max=counts_NL - 1)
        found_NL = self._synonyms.to(tokens_NL.device)[self._starts_W.to(tokens_NL.device)[at_NL] + drawn_NL]
        return torch.where(words_W[at_NL] == tokens_NL, found_NL, tokens_NL)

    def _inserted(self, tokens_NL: Tensor, draws: _Draws, share: float) -> Tensor:
        """Synonyms of some words, each anywhere in its text."""
        other_NL = self._synonym(tokens_NL, draws)
        put_NL = draws.some(tokens_NL, share, 1, other_NL != tokens_NL)
        length_N1 = (tokens_NL != 0).sum(1, keepdim=True)
        place_NL = torch.arange(tokens_NL.shape[1], device=tokens_NL.device).expand_as(tokens_NL)
        where_NL = (draws.uniform(tokens_NL.shape) * (length_N1 + 1)).floor() - 0.5
        keys_NM = torch.cat([place_NL.float(), where_NL], 1)
        both_NM = torch.cat([tokens_NL, torch.where(put_NL, other_NL, 0)], 1)
        return _compact(both_NM.gather(1, keys_NM.argsort(dim=1, stable=True)))

    def _shuffled(self, tokens_NL: Tensor, draws: _Draws, share: float) -> Tensor:
        """The sentences of some texts in another order."""
        ends_NL = torch.isin(tokens_NL, self._ends.to(tokens_NL.device))
        sentence_NL = ends_NL.long().cumsum(1) - ends_NL.long()
        order_NL = draws.uniform(tokens_NL.shape).gather(1, sentence_NL)
        order_NL = torch.where(tokens_NL != 0, order_NL, 2.0)
        other_NL = tokens_NL.gather(1, order_NL.argsort(dim=1, stable=True))
        return torch.where(draws.uniform((len(tokens_NL), 1)) < share, other_NL, tokens_NL)


class _Draws:
    """Random numbers where the tokens are."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def uniform(self, shape: tuple[int, ...] | torch.Size) -> Tensor:
        """From 0 to 1."""
        return torch.rand(shape, generator=self._generator, device=self._generator.device)

    def chosen(self, tokens_NL: Tensor, share: float) -> Tensor:
        """Each token of a text that is long enough, with such a probability."""
        long_N1 = (tokens_NL != 0).sum(1, keepdim=True) >= SHORTEST
        return (self.uniform(tokens_NL.shape) < share) & (tokens_NL != 0) & long_N1

    def some(self, tokens_NL: Tensor, share: float, least: int, of_NL: Tensor | None = None) -> Tensor:
        """Such a share of the tokens of each text that is long enough, at least so many; of those in `of_NL`."""
        length_N1 = (tokens_NL != 0).sum(1, keepdim=True)
        wanted_N1 = (share * length_N1).round().clamp(min=least) * (length_N1 >= SHORTEST)
        fit_NL = (tokens_NL != 0) if of_NL is None else of_NL
        order_NL = torch.where(fit_NL, self.uniform(tokens_NL.shape), 2.0)
        return (order_NL.argsort(1).argsort(1) < wanted_N1) & fit_NL


def _compact(tokens_NL: Tensor) -> Tensor:
    """What is left of each text, with nothing between."""
    return tokens_NL.gather(1, (tokens_NL == 0).to(torch.uint8).argsort(dim=1, stable=True))


def _swapped(tokens_NL: Tensor, chosen_NL: Tensor, draws: _Draws) -> Tensor:
    """The chosen tokens of each text, in each other's places."""
    place_NL = torch.arange(tokens_NL.shape[1], device=tokens_NL.device).expand_as(tokens_NL)
    last = tokens_NL.shape[1]
    in_order_NL = torch.where(chosen_NL, place_NL, last).argsort(dim=1, stable=True)
    drawn_NL = torch.where(chosen_NL, draws.uniform(tokens_NL.shape), 2.0).argsort(dim=1, stable=True)
    # Those that are not chosen stand at the end of both, in the same order.
    return torch.empty_like(tokens_NL).scatter_(1, in_order_NL, tokens_NL.gather(1, drawn_NL))
