"""What makes tokens of texts: the rule of words, or byte pairs that were learned. The one place that asks which.

N: texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tasks.core.data.inputs import TextInput

RULES = [
    "ASCII letters are made small; a token is a run of letters, a run of digits, or any other single character that is to be "
    "seen; Chinese characters, kana and Thai letters are tokens one by one.",
    "ingest.tokens: bpe: letters are made small; the tokens are byte pairs, learned from the texts for training; a model takes "
    "their numbers, and carries the tokenizer in its metadata.",
]


class Encoder(Protocol):
    """From texts to numbers of their tokens, and back to what people read."""

    def tokens_of(
        self, texts_N: npt.NDArray[np.object_]
    ) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]]:
        """The tokens of some texts after some others, end to end, and how many each has."""

    def names(self, texts_N: npt.NDArray[np.object_], /) -> dict[int, str]:
        """The tokens of these texts at least, each as it is read alone."""

    def ending_with(self, ends: tuple[str, ...]) -> list[int]:
        """The tokens that end with one of these characters, ascending."""


def encoder_of(given: TextInput) -> Encoder:
    """What made the tokens that a network takes."""
    if given.tokenizer is None:
        from tasks.core.data.tokens import Words

        return Words(given.longest)
    from tasks.core.data.bpe import BytePairs  # with a library that words do not need

    return BytePairs(given.tokenizer, given.longest)
