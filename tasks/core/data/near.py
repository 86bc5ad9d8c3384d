"""Images held out that look like one for training: leaks that equal pixels do not show.

Two images are near-duplicates when their grey pixels, reduced to at most FINE x FINE, correlate: another brightness or
contrast, compression, noise or size changes little of that; a crop, flip or turn is not found. n, N: images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.core.data.sources import SPLITS, TEST, TRAIN, VAL

COARSE, FINE = 16, 64  # sides that images are compared at: all with all, then the likeliest pair of each
LIKELY = 0.97  # correlation at COARSE from which on a pair is looked at closely
THRESHOLDS = (
    0.99,
    0.995,
    0.998,
)  # correlation at FINE; the first that hardly ever takes other classes' images for near
FALSE_ALARMS = 0.001  # share of the images held out that may be near to one of another class
WORK = 2e12  # multiply-accumulates of comparing; beyond, fewer images held out are looked at
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow makes grey of RGB
_BLOCK = 1 << 22  # correlations in memory at a time

RULES = [
    f"Near-duplicates of images for training are counted, not left out: grey pixels that correlate by {THRESHOLDS[0]} or "
    "more. How often that happens between classes is stated as the rate of false alarms.",
]


@dataclass(frozen=True)
class Near:
    """What was found.

    Attributes:
        pairs: split and row of an image held out, row of the image for training, correlation; the nearest first.
        threshold: correlation from which on two examples are near.
        measure: what does so by that much, in words.
        false_alarms: share of the images looked at that are as near to an image of another class.
        looked_at: images held out that were compared.
    """

    pairs: list[tuple[int, int, int, float]]
    threshold: float
    false_alarms: float
    looked_at: int
    measure: str = "grey pixels correlate"

    def count(self, split: int) -> int:
        """Images of a split that have a near-duplicate for training."""
        return sum(pair[0] == split for pair in self.pairs)


def find_near(folder: Path, seed: int) -> Near:
    """Compare the packed arrays in `folder`: val and test with train."""
    images = {split: folder / f"{SPLITS[split]}_images.npy" for split in range(3)}
    labels = {split: np.load(folder / f"{SPLITS[split]}_labels.npy") for split in range(3)}
    held = [(split, row) for split in (VAL, TEST) for row in range(len(labels[split]))]
    most = max(1, int(WORK / max(1, len(labels[TRAIN]) * COARSE**2)))
    if len(held) > most:
        chosen = np.sort(np.random.default_rng(seed).choice(len(held), most, replace=False))
        held = [held[i] for i in chosen]
    if not held or not len(labels[TRAIN]):
        return Near([], THRESHOLDS[0], 0.0, 0)
    rows = {split: np.array([row for s, row in held if s == split], np.int64) for split in (VAL, TEST)}
    held_nX = np.concatenate([_described(images[split], rows[split], COARSE) for split in (VAL, TEST)])
    labels_n = np.concatenate([labels[split][rows[split]] for split in (VAL, TEST)])
    of_class, of_others = _likeliest(held_nX, labels_n, images[TRAIN], labels[TRAIN])
    correlations = []
    for nearest_n, coarse_n in (of_class, of_others):
        likely = np.flatnonzero(coarse_n >= LIKELY)
        fine_n = np.full(len(held), -1.0)
        for i in likely.tolist():
            split, row = held[i]
            pair = (images[split], row), (images[TRAIN], int(nearest_n[i]))
            one, other = (_described(file, np.array([at]), FINE)[0] for file, at in pair)
            fine_n[i] = float(one @ other)
        correlations.append(fine_n)
    quiet = (t for t in THRESHOLDS if (correlations[1] >= t).mean() <= FALSE_ALARMS)
    threshold = next(quiet, THRESHOLDS[-1])
    near = np.flatnonzero(correlations[0] >= threshold)
    near = near[np.argsort(-correlations[0][near], kind="stable")]
    pairs = [(*held[i], int(of_class[0][i]), float(correlations[0][i])) for i in near.tolist()]
    return Near(pairs, threshold, float((correlations[1] >= threshold).mean()), len(held))


Nearest = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


def _likeliest(
    held_nX: npt.NDArray[np.float32],
    labels_n: npt.NDArray[np.int64],
    train: Path,
    train_labels_N: npt.NDArray[np.int64],
) -> tuple[Nearest, Nearest]:
    """The image for training that each image held out correlates with most, of its class and of the others, where that
    is LIKELY at least."""
    found = [(np.zeros(len(held_nX), np.int64), np.full(len(held_nX), -1.0, np.float32)) for _ in range(2)]
    step = max(1, _BLOCK // len(held_nX))
    for start in range(0, len(train_labels_N), step):
        rows = np.arange(start, min(start + step, len(train_labels_N)))
        correlation_nN = held_nX @ _described(train, rows, COARSE).T
        held, near = np.nonzero(correlation_nN >= LIKELY)  # few, of very many
        value, near = correlation_nN[held, near], rows[near]
        same = labels_n[held] == train_labels_N[near]
        for (nearest_n, best_n), wanted in zip(found, (same, ~same), strict=True):
            better = np.flatnonzero(wanted & (value > best_n[held]))
            better = better[
                np.argsort(value[better], kind="stable")
            ]  # of one image's the last, the nearest, stays
            nearest_n[held[better]], best_n[held[better]] = near[better], value[better]
    return found[0], found[1]


def _described(images: Path, rows: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.float32]:
    """[n, X] grey pixels of some images of a file, reduced to `side`, of mean 0 and length 1; of length 0 where all
    pixels are alike."""
    _, *sides, channels = np.load(images, mmap_mode="r").shape
    reduce_rows, reduce_columns = (_areas(length, side) for length in sides)
    luma_C = np.array(LUMA if channels == 3 else (1.0,), np.float32)
    parts = []
    for some in np.array_split(rows, max(1, len(rows) // 500)):
        # Mapped anew each time: the pages of a mapping that stays would all count as memory.
        grey_nHW = np.load(images, mmap_mode="r")[some].astype(np.float32) @ luma_C
        pixels_nX = (reduce_rows @ grey_nHW @ reduce_columns.T).reshape(
            len(some), len(reduce_rows) * len(reduce_columns)
        )
        pixels_nX -= pixels_nX.mean(1, keepdims=True)
        parts.append(pixels_nX / np.maximum(np.linalg.norm(pixels_nX, axis=1, keepdims=True), 1e-3))
    return np.concatenate(parts)


def _areas(length: int, side: int) -> npt.NDArray[np.float32]:
    """[side, length] the means over equal pieces of a line of pixels; of a short line itself."""
    if length <= side:
        return np.eye(length, dtype=np.float32)
    edges = np.linspace(0, length, side + 1)
    pixels = np.arange(length)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(covered, 0)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)
