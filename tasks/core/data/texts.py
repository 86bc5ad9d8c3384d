"""Many texts end to end in one file, and their tokens in another: memory-mapped, indexed as an array of them would be.

N: texts, L: tokens of the longest of those that were asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

LEAST_TOKENS = 2  # of the longest text of a batch: a graph of fewer is traced as one for that length alone
Rows = npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice


@dataclass(frozen=True)
class _Ragged:
    """N pieces of `flat`: piece i begins at `starts_N[i]` and is `lengths_N[i]` long. What is asked for by rows is a view."""

    flat: npt.NDArray[Any]
    starts_N: npt.NDArray[np.int64]
    lengths_N: npt.NDArray[np.int64]

    @classmethod
    def of(cls, flat: npt.NDArray[Any], ends_N: npt.NDArray[np.int64]) -> Self:
        """Pieces end to end."""
        starts_N = np.concatenate([np.zeros(1, np.int64), ends_N[:-1]])
        return cls(flat, starts_N, ends_N - starts_N)

    def __len__(self) -> int:
        return len(self.starts_N)

    def __getitem__(self, rows: Rows) -> Self:
        return replace(self, starts_N=self.starts_N[rows], lengths_N=self.lengths_N[rows])

    def joined(self, other: Self) -> Self:
        """The pieces of both."""
        flat = np.concatenate([self.packed(), other.packed()])
        return self.of(flat, np.cumsum(np.concatenate([self.lengths_N, other.lengths_N])))

    def packed(self) -> npt.NDArray[Any]:
        """The pieces end to end, and nothing else."""
        ends_N = np.cumsum(self.lengths_N)
        shift_N = self.starts_N - (ends_N - self.lengths_N)
        places = np.arange(self.lengths_N.sum()) + np.repeat(shift_N, self.lengths_N)
        return np.asarray(self.flat[places])


class Tokens(_Ragged):
    """Of each text the hashes of its tokens, uint32. As an array: int64 [N, L], filled up with 0."""

    @property
    def shape(self) -> tuple[int, int]:
        """N, L."""
        return len(self), int(self.lengths_N.max(initial=0))

    @property
    def nbytes(self) -> int:
        """Of the array."""
        rows, columns = self.shape
        return 8 * rows * columns

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        longest = np.arange(self.shape[1])
        there_NL = longest < self.lengths_N[:, None]
        tokens_NL = np.zeros(there_NL.shape, np.int64)
        tokens_NL[there_NL] = self.packed()
        return tokens_NL if dtype is None else tokens_NL.astype(dtype)


class Texts(_Ragged):
    """UTF-8. As an array: strings, [N]."""

    @classmethod
    def of_strings(cls, texts: Iterable[str]) -> Texts:
        """In memory."""
        parts = [text.encode() for text in texts]
        ends_N = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls.of(np.frombuffer(b"".join(parts), np.uint8), ends_N)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        texts_N = np.empty(len(self), object)
        for i, (start, length) in enumerate(zip(self.starts_N, self.lengths_N, strict=True)):
            texts_N[i] = self.flat[start : start + length].tobytes().decode()
        return texts_N


def open_texts(folder: Path, split: str) -> tuple[Texts, Tokens]:
    """What `ingest` wrote of a split. Raises FileNotFoundError."""
    return (
        Texts.of(*(np.load(folder / f"{split}_texts{part}.npy", mmap_mode="r") for part in ("", "_ends"))),
        Tokens.of(*(np.load(folder / f"{split}_tokens{part}.npy", mmap_mode="r") for part in ("", "_ends"))),
    )
