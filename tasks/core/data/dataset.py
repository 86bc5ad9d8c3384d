"""The packed data set that `ingest` writes, opened without reading it: arrays are memory-mapped.

Shapes: N images, H high, W wide, C channels (1 grey, 3 RGB).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.common.errors import BadInput
from tasks.core.common.files import read_json

FEW = 1000  # images that a part for searching holds at least, if there are so many


@dataclass(frozen=True)
class Split:
    """One of train, val and test. Read-only; a slice copies only what it touches.

    `sampling` is how images are drawn from it: uniform, each once; or balanced, every class equally often, rare
    images many times. What a network learns from and what its statistics are computed on are drawn alike.
    """

    images_NHWC: npt.NDArray[np.uint8]
    labels_N: npt.NDArray[np.int64]
    sampling: str = "uniform"

    def __len__(self) -> int:
        return len(self.labels_N)

    def drawn(self, count: int, draws: np.random.Generator) -> npt.NDArray[np.intp]:
        """Indices of `count` images, at most as many as there are, in random order."""
        labels_N = np.asarray(self.labels_N)
        if self.sampling == "balanced":
            share_N = 1 / np.bincount(labels_N)[labels_N]
            return draws.choice(len(labels_N), count, p=share_N / share_N.sum())
        return draws.permutation(len(labels_N))[:count]


@dataclass(frozen=True)
class Dataset:
    """The three splits and what is known of them all.

    Labels index `classes`. `image_shape` is (H, W, C); `channel_mean` and `channel_std` are of the
    training images, one number a channel, with pixels in 0..1. `digest` is a SHA-256 over the arrays.
    """

    classes: list[str]
    image_shape: tuple[int, int, int]
    channel_mean: list[float]
    channel_std: list[float]
    digest: str
    train: Split
    val: Split
    test: Split


def pixel_scale(mean: list[float], std: list[float]) -> tuple[int, float]:
    """The one `zero` (a grey level) and `scale` with which all channels are normalised.

    `mean` and `std` are one number a channel for pixels in 0..1. Because zero is a whole grey level
    and no channel has its own, an image is already what quantization calls a uint8 tensor with a
    zero point and a scale: an int8 graph takes it as it is, and a float one needs one operator.
    Batch norm, which follows, sees to the channels' differences. Without any variation scale is 0.
    """
    zero = round(255 * sum(mean) / len(mean))
    variance = sum(s * s + (m - zero / 255) ** 2 for m, s in zip(mean, std, strict=True)) / len(mean)
    return zero, 1 / (255 * math.sqrt(variance)) if variance else 0.0


def open_dataset(folder: Path, sampling: str = "uniform") -> Dataset:
    """The data set in `folder`; `sampling` is of its training images.

    Raises:
        BadInput: a file is missing, or is not what `ingest` writes.
    """
    try:
        about = read_json(folder / "dataset.json")
        height, width, channels = about["image_shape"]
        shape = (height, width, channels)
        splits = {name: _open_split(folder, name, shape) for name in ("train", "val", "test")}
        splits["train"] = replace(splits["train"], sampling=sampling)
        return Dataset(
            classes=about["classes"],
            image_shape=shape,
            channel_mean=about["channel_mean"],
            channel_std=about["channel_std"],
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
    return replace(train, images_NHWC=train.images_NHWC[rows], labels_N=np.asarray(train.labels_N[rows]))


def _open_split(folder: Path, name: str, shape: tuple[int, int, int]) -> Split:
    images_NHWC = _open_array(folder / f"{name}_images.npy", np.uint8)
    labels_N = _open_array(folder / f"{name}_labels.npy", np.int64)
    if images_NHWC.shape != (len(labels_N), *shape):
        raise BadInput(
            f"{folder / name}_images.npy: shape {images_NHWC.shape} does not fit {len(labels_N)} labels "
            f"of images {shape}; run the stage ingest again"
        )
    return Split(images_NHWC, labels_N)


def _open_array(path: Path, kind: type[np.generic]) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise BadInput(f"{path}: not a whole NumPy array ({error}); run the stage ingest again") from None
    if array.dtype != kind:
        raise BadInput(f"{path}: holds {array.dtype}, not {np.dtype(kind)}; run the stage ingest again")
    return array
