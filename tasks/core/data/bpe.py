"""Byte-level byte-pair encoding, learned from the texts for training: Sennrich, Haddow and Birch 2016 (arXiv:1508.07909), on
bytes as of Radford et al. 2019, so that no character is unknown. For texts whose words the rule of `tokens` does not find.

A token is its number in the vocabulary plus one: 0 stands behind a text's last.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tasks.core.data.texts import LEAST_TOKENS

# Latency is promised of one thread; and the library's threads do not survive the fork that loads data.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

LEAST_TIMES = 2  # that two tokens stand side by side, or they are not joined
BATCH = 256  # texts that are encoded at once


def learned(texts: Iterable[str], vocabulary: int) -> str:
    """A tokenizer of at most so many tokens, as JSON of the library tokenizers; the same for the same texts."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=LEAST_TIMES,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return str(made.to_str())


class BytePairs:
    """What makes tokens of texts, an `Encoder`.

    Args:
        described: what `learned` returns.
        longest: tokens that are kept of a text.

    Raises:
        ValueError: it is no tokenizer.
    """

    def __init__(self, described: str, longest: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(described)
        except Exception as error:  # the library raises no other class
            raise ValueError(f"no tokenizer: {error}") from None
        self._tokenizer.enable_truncation(longest)

    def tokens_of(
        self, texts_N: npt.NDArray[np.object_]
    ) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]]:
        """The tokens of BATCH texts, end to end, and how many each has."""
        for start in range(0, len(texts_N), BATCH):
            found = self._encoded(texts_N[start : start + BATCH].tolist())
            yield np.concatenate(found), np.array([len(tokens) for tokens in found], np.int64)

    def padded(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """tokens_NL, at least LEAST_TOKENS wide."""
        found = self._encoded(list(texts))
        tokens_NL = np.zeros((len(found), max([LEAST_TOKENS, *(len(tokens) for tokens in found)])), np.int64)
        for row_L, tokens in zip(tokens_NL, found, strict=True):
            row_L[: len(tokens)] = tokens
        return tokens_NL

    def _encoded(self, texts: list[str]) -> list[npt.NDArray[np.uint32]]:
        return [np.array(e.ids, np.uint32) + np.uint32(1) for e in self._tokenizer.encode_batch_fast(texts)]

    def names(self, _: npt.NDArray[np.object_] | None = None) -> dict[int, str]:
        """All tokens, each as it is read alone."""
        return {
            number + 1: self._tokenizer.decode([number]).strip()
            for number in self._tokenizer.get_vocab().values()
        }

    def ending_with(self, ends: tuple[str, ...]) -> list[int]:
        """The tokens that end with one of these characters, ascending."""
        return sorted(token for token, name in self.names().items() if name.endswith(ends))

    def read(self, tokens: npt.NDArray[np.uint32]) -> str:
        """The text, in small letters and without blanks around it, that these are the tokens of."""
        return str(self._tokenizer.decode((tokens.astype(np.int64) - 1).tolist())).strip()
