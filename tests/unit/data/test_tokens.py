"""What a token is."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils import murmurhash3_32

from tasks.core.data.tokens import Words, hashes_of

TEXT = "Grüße! It's 3.5 MB — 日本語, ΑΒΓ e\u0301."
WORDS = ["grüße", "!", "it", "'", "s", "3", ".", "5", "mb", "—", "日", "本", "語", ",", "ΑΒΓ", "e\u0301", "."]


def test_words_are_letters_digits_or_single_signs_when_a_text_is_split() -> None:
    assert list(Words(99).names(np.array([TEXT], object)).values()) == list(dict.fromkeys(WORDS))


def test_hashes_are_murmur_s_when_words_are_hashed() -> None:
    assert hashes_of(WORDS) == {word: murmurhash3_32(word.encode(), 0, positive=True) for word in WORDS}


@pytest.mark.parametrize("text", ["", "   \n\t", "\u200b\u00a0"])
def test_text_has_no_tokens_when_there_is_nothing_to_be_seen(text: str) -> None:
    ((tokens, lengths),) = Words(8).tokens_of(np.array([text], object))
    assert lengths.tolist() == [0]
    assert len(tokens) == 0


def test_tokens_are_cut_when_a_text_has_more_than_the_longest() -> None:
    ((tokens, lengths),) = Words(3).tokens_of(np.array(["a b c d e", "x"], object))
    assert lengths.tolist() == [3, 1]
    assert tokens.tolist() == [hashes_of([word])[word] for word in "abcx"]
