"""Texts held out that share most of their words with one for training: leaks that equal texts do not show.

Two texts are near-duplicates when their shingles (runs of SHINGLE tokens) overlap: what both have, of what either has
(Broder 1997, "On the resemblance and containment of documents"). Candidates are found by MinHash, then compared whole.

n: texts that are compared, B: bands.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.core.data.near import FALSE_ALARMS, Near
from tasks.core.data.sources import SPLITS, TEST, TRAIN, VAL
from tasks.core.data.texts import Tokens, open_texts

SHINGLE = 3
BANDS = 12  # a pair whose shingles overlap by 0.7 has one of the BANDS minima in common in 99 of 100 cases
THRESHOLDS = (0.7, 0.85, 0.95)  # the first that hardly ever takes texts of another class for near
MOST = 200_000  # texts held out that are looked at
LARGEST = 50  # texts for training that one minimum may name

RULES = [
    f"Near-duplicates of texts for training are counted, not left out: runs of {SHINGLE} tokens that overlap by "
    f"{THRESHOLDS[0]} or more. How often that happens between classes is stated as the rate of false alarms.",
]


def find_near(folder: Path, seed: int) -> Near:
    """Compare the packed arrays in `folder`: val and test with train."""
    tokens = {split: open_texts(folder, SPLITS[split])[1] for split in range(3)}
    labels = {split: np.load(folder / f"{SPLITS[split]}_labels.npy") for split in range(3)}
    held = [(split, row) for split in (VAL, TEST) for row in range(len(labels[split]))]
    if len(held) > MOST:
        chosen = np.sort(np.random.default_rng(seed).choice(len(held), MOST, replace=False))
        held = [held[i] for i in chosen]
    if not held or not len(labels[TRAIN]):
        return Near([], THRESHOLDS[0], 0.0, 0, MEASURE)
    factors_B = np.random.default_rng(0).integers(1, 2**63, BANDS, dtype=np.uint64) | np.uint64(1)
    named = _by_minimum(tokens[TRAIN], factors_B)
    of_class, of_others = ({}, {})  # type: dict[int, tuple[float, int]], dict[int, tuple[float, int]]
    for i, (split, row) in enumerate(held):
        mine = shingles(tokens[split], row)
        if not len(mine):
            continue
        candidates = {
            r for band, m in enumerate(_minima(mine, factors_B)) for r in named[band].get(int(m), ())
        }
        for train in sorted(candidates):
            overlap = resemblance(mine, shingles(tokens[TRAIN], train))
            best = of_class if labels[split][row] == labels[TRAIN][train] else of_others
            if overlap > best.get(i, (0.0, 0))[0]:
                best[i] = overlap, train
    alarms = {t: sum(overlap >= t for overlap, _ in of_others.values()) / len(held) for t in THRESHOLDS}
    threshold = next((t for t in THRESHOLDS if alarms[t] <= FALSE_ALARMS), THRESHOLDS[-1])
    pairs = [(*held[i], train, overlap) for i, (overlap, train) in of_class.items() if overlap >= threshold]
    pairs.sort(key=lambda pair: (-pair[3], pair[:3]))
    return Near(pairs, threshold, alarms[threshold], len(held), MEASURE)


MEASURE = "runs of three words overlap"


def shingles(tokens: Tokens, row: int) -> npt.NDArray[np.uint64]:
    """The different runs of SHINGLE tokens of a text, each as one number; of a shorter text, all of it."""
    start, length = tokens.starts_N[row], tokens.lengths_N[row]
    of_text = tokens.flat[start : start + length].astype(np.uint64)
    runs = np.zeros(max(min(1, len(of_text)), len(of_text) - SHINGLE + 1), np.uint64)
    for place in range(min(SHINGLE, len(of_text))):
        runs = runs * np.uint64(0x9E3779B97F4A7C15) + of_text[place : place + len(runs)]
    return np.unique(runs)


def resemblance(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> float:
    """How many shingles both have, of those that either has."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / max(1, len(one) + len(other) - both)


def _minima(of_text: npt.NDArray[np.uint64], factors_B: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """[B] the least of a text's shingles, in the order of each band."""
    mixed_nB = of_text[:, None] * factors_B
    return np.asarray((mixed_nB ^ (mixed_nB >> np.uint64(29))).min(0))


def _by_minimum(train: Tokens, factors_B: npt.NDArray[np.uint64]) -> list[dict[int, list[int]]]:
    """For each band the texts for training by their minimum."""
    named: list[dict[int, list[int]]] = [{} for _ in factors_B]
    for row in range(len(train)):
        mine = shingles(train, row)
        for band, minimum in enumerate(_minima(mine, factors_B) if len(mine) else ()):
            rows = named[band].setdefault(int(minimum), [])
            if len(rows) < LARGEST:
                rows.append(row)
    return named
