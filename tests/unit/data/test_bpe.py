"""Byte pairs: what is learned, and what becomes of texts."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.data.bpe import BytePairs, learned

TEXTS = [
    "the wind and the rain",
    "the rain in the wind",
    "Wind! Rain?",
    "\u5929\u6c14\u5f88\u597d",
    "\u5929\u6c14\u4e0d\u597d",
] * 20
ODD = [
    "",
    "   ",
    "\x00",
    "\U0001f600 \U0001f389",
    "\u0643\u062a\u0627\u0628",
    "nobody knows these",
    "x" * 100_000,
    "wind " * 5000,
]


def test_byte_pairs_are_the_same_when_they_are_learned_again() -> None:
    described = learned(TEXTS, 300)
    assert described == learned(TEXTS, 300)
    names = BytePairs(described, 8).names()
    assert {"wind", "the", "\u5929\u6c14"} <= set(names.values())
    assert len(names) <= 300 and min(names) == 1


@pytest.mark.parametrize("text", ODD)
def test_text_is_read_back_from_its_tokens_when_it_is_odd(text: str) -> None:
    made = BytePairs(learned(TEXTS, 300), 200_000)
    ((tokens, lengths),) = made.tokens_of(np.array([text], object))
    assert lengths.tolist() == [len(tokens)]
    assert made.read(tokens) == text.strip()


def test_tokens_are_cut_and_at_least_two_wide_when_texts_are_padded() -> None:
    made = BytePairs(learned(TEXTS, 300), 3)
    tokens_NL = made.padded(["", "the wind and the rain", "rain"])
    assert tokens_NL.shape == (3, 3)
    assert tokens_NL[0].tolist() == [0, 0, 0]
    assert (tokens_NL[1] > 0).all()
    assert tokens_NL[2, 0] > 0 and tokens_NL[2, 1] == 0
    assert made.padded([]).shape == (0, 2)
    assert made.padded([""]).shape == (1, 2)


def test_nothing_is_taken_for_a_tokenizer_when_it_is_none() -> None:
    with pytest.raises(ValueError, match="no tokenizer"):
        BytePairs("{}", 8)
