"""From rows of pixels to the packed data set: duplicates, splits, arrays.

Shapes: N rows (all that were decoded), H high, W wide, C channels. A row's place is its split, TRAIN, VAL
or TEST, or OPEN while it is to be drawn, or a negative number that says why it is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from tasks.core.data.sources import OPEN, SPLITS, TRAIN

UNUSABLE, CONFLICT, WITHIN, ACROSS, SCATTERED = -2, -3, -4, -5, -6
RULES = [
    "Images are duplicates when all pixels are equal, after decoding and resizing.",
    "Duplicates under different labels are all left out, since nothing says which label is right.",
    "Of other duplicates one is kept: the one in test before that in val before that in train, so that "
    "nothing is trained on that is tested; then the first by path.",
    "A split that is not given is drawn by class, at least one image of each, by a hash of pixels and "
    "seed: when images are added later, nearly all others stay in their split.",
]

_BLOCK_BYTES = 1 << 20  # counting pixel values takes eight times that for a moment


def mark_duplicates(
    digests_N: npt.NDArray[np.uint64], labels_N: npt.NDArray[np.int32], places_N: npt.NDArray[np.int8]
) -> npt.NDArray[np.int64]:
    """Set CONFLICT, WITHIN and ACROSS in `places_N`, in place.

    Returns:
        [N] the row that is kept in a row's stead; -1 for rows that are kept, or had no equal.
    """
    kept_N = np.full(len(digests_N), -1, np.int64)
    rows = np.flatnonzero(places_N >= OPEN)
    # Equal rows side by side, the one to keep first: the highest split, then the first row.
    rows = rows[np.lexsort((rows, -places_N[rows], digests_N[rows]))]
    if not len(rows):
        return kept_N
    starts = np.flatnonzero(np.r_[True, np.diff(digests_N[rows]) != 0])
    sizes = np.diff(np.r_[starts, len(rows)])
    keeper = np.repeat(rows[starts], sizes)
    conflict = np.repeat(
        np.minimum.reduceat(labels_N[rows], starts) != np.maximum.reduceat(labels_N[rows], starts), sizes
    )
    spare = ~conflict & (rows != keeper)
    same_split = places_N[rows] == places_N[keeper]
    kept_N[rows[spare]] = keeper[spare]
    places_N[rows[conflict]] = CONFLICT
    places_N[rows[spare & same_split]] = WITHIN
    places_N[rows[spare & ~same_split]] = ACROSS
    return kept_N


def mark_scattered(places_N: npt.NDArray[np.int8], groups_N: npt.NDArray[np.int64]) -> None:
    """Set SCATTERED in `places_N`, in place: a group keeps its images in the last of train, val, test that it has."""
    last = np.full(groups_N.max(initial=0) + 1, OPEN, np.int8)
    np.maximum.at(last, groups_N, places_N)
    places_N[(places_N >= OPEN) & (places_N < last[groups_N])] = SCATTERED


def draw_splits(
    digests_N: npt.NDArray[np.uint64],
    labels_N: npt.NDArray[np.int32],
    places_N: npt.NDArray[np.int8],
    fractions: dict[int, float],
    seed: int,
    groups_N: npt.NDArray[np.int64] | None = None,
) -> None:
    """Give every OPEN row its split, in place: stratified, and the same on every machine.

    Args:
        fractions: of the OPEN rows, what goes to VAL and to TEST; the rest is TRAIN.
        groups_N: rows of the same number stay together; a group counts for the class that most of it is of.
    """
    rows = np.flatnonzero(places_N == OPEN)
    of_row_n = np.arange(len(rows)) if groups_N is None else np.unique(groups_N[rows], return_inverse=True)[1]
    sizes_G = np.bincount(of_row_n)
    digests_G = np.full(len(sizes_G), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(digests_G, of_row_n, digests_N[rows])
    ranks_G = np.array([_rank(seed, int(digest)) for digest in digests_G], np.uint64)
    classes_G = _most_frequent(of_row_n, labels_N[rows])
    ordered = np.lexsort((ranks_G, classes_G))
    split_G = np.full(len(sizes_G), TRAIN, np.int8)
    for members in np.split(ordered, np.flatnonzero(np.diff(classes_G[ordered])) + 1):
        reached = np.cumsum(sizes_G[members])
        taken = 0
        for split, fraction in fractions.items():
            wanted = (reached[taken - 1] if taken else 0) + max(1, round(int(reached[-1]) * fraction))
            nearest = int(np.abs(reached - wanted).argmin()) + 1
            end = max(taken, min(max(nearest, taken + 1), len(members) - 1))  # train keeps one
            split_G[members[taken:end]] = split
            taken = end
    places_N[rows] = split_G[of_row_n]


def _most_frequent(groups_n: npt.NDArray[np.int64], labels_n: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """[G] the label that most rows of each group have."""
    order = np.lexsort((labels_n, groups_n))
    groups_n, labels_n = groups_n[order], labels_n[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(groups_n) != 0) | (np.diff(labels_n) != 0)])[: len(order)]
    lengths = np.diff(np.r_[starts, len(order)])
    best = np.lexsort((-lengths, groups_n[starts]))
    _, first = np.unique(groups_n[starts][best], return_index=True)
    return labels_n[starts][best][first]


def _rank(seed: int, digest: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {digest:016x}".encode()).digest()[:8], "big")


@dataclass(frozen=True)
class Rows:
    """Where pixels lie: file after file (path, offset, number of rows) of uint8 [H, W, C]."""

    files: list[tuple[Path, int, int]]
    shape: tuple[int, int, int]

    def blocks(self) -> Iterator[npt.NDArray[np.uint8]]:
        """All rows in order, some megabytes at a time: [n, H, W, C]."""
        row_bytes = int(np.prod(self.shape))
        step = max(1, _BLOCK_BYTES // row_bytes)
        for path, offset, count in self.files:
            with path.open("rb") as file:
                file.seek(offset)
                for start in range(0, count, step):
                    n = min(step, count - start)
                    yield np.frombuffer(file.read(n * row_bytes), np.uint8).reshape(n, *self.shape)


@dataclass(frozen=True)
class Packed:
    """What `write_arrays` found on its way: see `tasks.core.data.dataset.Dataset`."""

    digest: str
    channel_mean: list[float]
    channel_std: list[float]


def write_arrays(
    rows: Rows,
    labels_N: npt.NDArray[np.int32],
    places_N: npt.NDArray[np.int8],
    out: Path,
    packed: Callable[[int], None],
) -> Packed:
    """Copy the rows to the arrays of their splits, in their order, under `out`.

    Args:
        packed: is told of every so many rows that are done.

    Raises:
        OSError: the disk is full.
    """
    histogram_CV = np.zeros((rows.shape[2], 256), np.int64)
    with ExitStack() as stack:
        images = [
            stack.enter_context(
                _ArrayFile(out / f"{name}_images.npy", (int((places_N == split).sum()), *rows.shape))
            )
            for split, name in enumerate(SPLITS)
        ]
        start = 0
        for block_nHWC in rows.blocks():
            places_n = places_N[start : start + len(block_nHWC)]
            for split, file in enumerate(images):
                file.append(block_nHWC[places_n == split])
            for channel, counts in enumerate(histogram_CV):
                counts += np.bincount(block_nHWC[places_n == TRAIN, ..., channel].ravel(), minlength=256)
            start += len(block_nHWC)
            packed(len(block_nHWC))
    total = hashlib.sha256()
    for split, (name, file) in enumerate(zip(SPLITS, images, strict=True)):
        labels = labels_N[places_N == split].astype(np.int64)
        np.save(out / f"{name}_labels.npy", labels)
        total.update(f"{name} {rows.shape} {len(labels)}\n".encode())
        total.update(file.sum.digest() + hashlib.sha256(labels.data).digest())
    return Packed(total.hexdigest(), *_moments(histogram_CV))


def _moments(histogram_CV: npt.NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, pixels in 0..1; exact up to the rounding.

    A channel that (nearly) never varies gets one step of 1/255, so that one can divide by it.
    """
    values = np.arange(256) / 255
    share_CV = histogram_CV / histogram_CV.sum(axis=1, keepdims=True)
    mean_C = share_CV @ values
    variance_C = (share_CV * (values - mean_C[:, None]) ** 2).sum(axis=1)
    std_C = np.maximum(np.sqrt(variance_C), 1 / 255)
    return [round(float(m), 6) for m in mean_C], [round(float(d), 6) for d in std_C]


class _ArrayFile:
    """A .npy of uint8, written front to back: mapping it would count all its pages as memory."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.sum = hashlib.sha256()
        self._file = path.open("wb")
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, rows: npt.NDArray[np.uint8]) -> None:
        """Write these rows next."""
        self.sum.update(rows.data)
        self._file.write(rows.data)

    def __enter__(self) -> _ArrayFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
