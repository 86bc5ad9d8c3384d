"""The packed data set that `ingest` writes, opened without reading it: arrays are memory-mapped.

Shapes: N images, H high, W wide, C channels (1 grey, 3 RGB).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.common.errors import BadInput
from tasks.core.common.files import read_json
from tasks.core.data.inputs import ImageInput, Input, TextInput
from tasks.core.data.texts import Rows, Texts, Tokens, open_texts

TOKENIZER_FILE = "tokenizer.json"  # of byte pairs, beside their numbers
FEW = 1000  # images that a part for searching holds at least, if there are so many


@dataclass(frozen=True)
class Split:
    """One of train, val and test. Read-only; a slice copies only what it touches.

    `raw_N` is what the graph of a file takes: images, uint8 [N, H, W, C], or texts; `tokens_N` are those of the texts.
    `sampling` is how examples are drawn: uniform, each once; or balanced, every class equally often, rare ones many times.
    What a network learns from and what its statistics are computed on are drawn alike. `targets_NK`, probabilities of the
    classes, are what texts are learned towards in place of their labels alone.
    """

    raw_N: npt.NDArray[np.uint8] | Texts
    labels_N: npt.NDArray[np.int64]
    sampling: str = "uniform"
    tokens_N: Tokens | None = None
    targets_NK: npt.NDArray[np.float32] | None = None

    @property
    def x_N(self) -> Any:
        """What `Dataset.input` makes the input of a network from: images, or tokens."""
        return self.raw_N if self.tokens_N is None else self.tokens_N

    @property
    def sizes_N(self) -> npt.NDArray[np.int64] | None:
        """How many tokens each text has; None of images, which are all of one size."""
        return None if self.tokens_N is None else self.tokens_N.lengths_N

    def taken(self, rows: Rows) -> Split:
        """Those examples alone."""
        return replace(
            self,
            raw_N=self.raw_N[rows],
            labels_N=np.asarray(self.labels_N[rows]),
            tokens_N=None if self.tokens_N is None else self.tokens_N[rows],
            targets_NK=None if self.targets_NK is None else self.targets_NK[rows],
        )

    def typical(self, count: int) -> Split:
        """Examples to take the time with: the first images, or the texts whose length is nearest to the median."""
        if self.tokens_N is None:
            return self.taken(slice(count))
        lengths_N = self.tokens_N.lengths_N
        return self.taken(np.argsort(np.abs(lengths_N - np.median(lengths_N)), kind="stable")[:count])

    def joined(self, other: Split) -> Split:
        """The examples of both."""
        labels_N = np.concatenate([self.labels_N, other.labels_N])
        if isinstance(self.raw_N, Texts):
            assert isinstance(other.raw_N, Texts) and self.tokens_N is not None and other.tokens_N is not None
            texts, tokens = self.raw_N.joined(other.raw_N), self.tokens_N.joined(other.tokens_N)
            return replace(self, raw_N=texts, labels_N=labels_N, tokens_N=tokens)
        return replace(self, raw_N=np.concatenate([self.raw_N, other.raw_N]), labels_N=labels_N)

    def __len__(self) -> int:
        return len(self.labels_N)

    def drawn(self, count: int, draws: np.random.Generator) -> npt.NDArray[np.intp]:
        """Indices of `count` examples, at most as many as there are, in random order."""
        labels_N = np.asarray(self.labels_N)
        if self.sampling == "balanced":
            share_N = 1 / np.bincount(labels_N)[labels_N]
            return draws.choice(len(labels_N), count, p=share_N / share_N.sum())
        return draws.permutation(len(labels_N))[:count]


@dataclass(frozen=True)
class Dataset:
    """The three splits and what is known of them all.

    Labels index `classes`; `input` is what networks take. `digest` is a SHA-256 over the arrays.
    """

    classes: list[str]
    input: Input
    digest: str
    train: Split
    val: Split
    test: Split


def open_dataset(folder: Path, sampling: str = "uniform") -> Dataset:
    """The data set in `folder`; `sampling` is of its training images.

    Raises:
        BadInput: a file is missing, or is not what `ingest` writes.
    """
    try:
        about = read_json(folder / "dataset.json")
        given: Input
        if about.get("kind") == "texts":
            given = TextInput(about["longest"], about["typical"], _tokenizer(folder, about["tokens"]))
        else:
            height, width, channels = about["image_shape"]
            given = ImageInput((height, width, channels), about["channel_mean"], about["channel_std"])
        splits = {name: _open_split(folder, name, given) for name in ("train", "val", "test")}
        splits["train"] = replace(splits["train"], sampling=sampling)
        return Dataset(
            classes=about["classes"],
            input=given,
            digest=about["digest"],
            **splits,
        )
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise BadInput(f"{folder / 'dataset.json'}: not a description of a data set ({error})") from None
    except FileNotFoundError as error:
        raise BadInput(f"{error.filename}: no such file; run the stage ingest first") from None


def balanced(labels_N: npt.NDArray[np.int64], count: int, seed: int) -> npt.NDArray[np.intp]:
    """Indices of `count` labels, or of all if they are fewer, in ascending order: as many of each class
    as there are, up to an equal share; which ones is for `seed` to say."""
    shuffled = np.random.default_rng(seed).permutation(len(labels_N))
    turn = np.empty(len(labels_N), np.intp)  # an image's place among those of its class
    for label in np.unique(labels_N):
        of_label = shuffled[labels_N[shuffled] == label]
        turn[of_label] = np.arange(len(of_label))
    return np.sort(np.argsort(turn, kind="stable")[:count])


def subset(train: Split, fraction: float, seed: int) -> Split:
    """The same random part of the training images for the same seed; all of them where there are few."""
    total = len(train.labels_N)
    count = max(min(total, FEW), round(total * fraction))
    rows = np.sort(np.random.default_rng(seed).permutation(len(train.labels_N))[:count])
    return train.taken(rows)


def _open_split(folder: Path, name: str, given: Input) -> Split:
    labels_N = _open_array(folder / f"{name}_labels.npy", np.int64)
    if isinstance(given, TextInput):
        texts, tokens = open_texts(folder, name)
        if not len(texts) == len(tokens) == len(labels_N):
            raise BadInput(f"{folder / name}_texts.npy: does not fit the labels; run the stage ingest again")
        return Split(texts, labels_N, tokens_N=tokens)
    images_NHWC = _open_array(folder / f"{name}_images.npy", np.uint8)
    if images_NHWC.shape != (len(labels_N), *given.shape):
        raise BadInput(
            f"{folder / name}_images.npy: shape {images_NHWC.shape} does not fit {len(labels_N)} labels "
            f"of images {given.shape}; run the stage ingest again"
        )
    return Split(images_NHWC, labels_N)


def _tokenizer(folder: Path, tokens: str) -> str | None:
    return None if tokens == "words" else (folder / TOKENIZER_FILE).read_text(encoding="utf-8")


def _open_array(path: Path, kind: type[np.generic]) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise BadInput(f"{path}: not a whole NumPy array ({error}); run the stage ingest again") from None
    if array.dtype != kind:
        raise BadInput(f"{path}: holds {array.dtype}, not {np.dtype(kind)}; run the stage ingest again")
    return array
