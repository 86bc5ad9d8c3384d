"""Texts and tokens, packed end to end."""

from __future__ import annotations

import numpy as np

from tasks.core.data.texts import Texts, Tokens

STRINGS = ["one", "", "zwölf Möwen", "日本"]
TEXTS = Texts.of_strings(STRINGS)
TOKENS = Tokens.of(np.array([5, 6, 7, 8], np.uint32), np.array([2, 2, 3, 4]))


def test_texts_are_the_strings_when_they_are_made_an_array() -> None:
    assert np.asarray(TEXTS).tolist() == STRINGS
    assert np.asarray(TEXTS[np.array([3, 0])]).tolist() == ["日本", "one"]
    assert np.asarray(TEXTS[1:3]).tolist() == STRINGS[1:3]
    assert np.asarray(TEXTS[np.array([False, False, True, False])]).tolist() == STRINGS[2:3]


def test_tokens_are_filled_up_with_zeros_when_they_are_made_an_array() -> None:
    assert np.asarray(TOKENS).tolist() == [[5, 6], [0, 0], [7, 0], [8, 0]]
    assert np.asarray(TOKENS[np.array([2, 3])]).tolist() == [[7], [8]], "as long as the longest of these"
    assert TOKENS.shape == (4, 2)
    assert TOKENS.nbytes == np.asarray(TOKENS).nbytes


def test_pieces_are_those_of_both_when_joined() -> None:
    both = TEXTS[1:3].joined(TEXTS[np.array([0])])
    assert np.asarray(both).tolist() == ["", "zwölf Möwen", "one"]
    assert np.asarray(TOKENS[2:].joined(TOKENS[:1])).tolist() == [[7, 0], [8, 0], [5, 6]]


def test_packed_holds_nothing_else_when_rows_were_left_out() -> None:
    assert TOKENS[np.array([0, 3])].packed().tolist() == [5, 6, 8]
    assert TEXTS[np.array([3])].packed().tobytes().decode() == "日本"
