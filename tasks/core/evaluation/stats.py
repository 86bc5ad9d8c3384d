"""What the test set can prove: paired intervals, a paired test and calibration.

N: test images, K: classes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from tasks.core.evaluation.bar import Loss

_CHUNK = 100  # resamples in memory at once


def drop_interval(
    reference_N: NDArray[np.bool_], candidate_N: NDArray[np.bool_], resamples: int, seed: int
) -> tuple[float, float]:
    """95 % interval of the accuracy that `candidate` loses to `reference`, in points.

    The paired percentile bootstrap (Efron & Tibshirani 1993, chapter 13). A resample of the test
    images matters only through how many of them the reference alone, the candidate alone and both
    or neither got right, and these counts are multinomial: drawing them is the same bootstrap at a
    thousandth of the cost.

    Args:
        reference_N: whether the reference is right about each image.
        candidate_N: the same of the candidate, in the same order.
        resamples: number of bootstrap samples.
        seed: of the draws.
    """
    n = len(reference_N)
    lost = int((reference_N & ~candidate_N).sum())
    gained = int((candidate_N & ~reference_N).sum())
    shares = [lost / n, gained / n, (n - lost - gained) / n]
    counts = np.random.default_rng(seed).multinomial(n, shares, size=resamples)
    drops = (counts[:, 0] - counts[:, 1]) / n * 100
    low, high = np.percentile(drops, [2.5, 97.5])
    return float(low), float(high)


def loss(reference_N: NDArray[np.bool_], candidate_N: NDArray[np.bool_], resamples: int, seed: int) -> Loss:
    """What `candidate` loses to `reference`, with its interval (see `drop_interval`, whose arguments these are) and the
    standard error of a difference of paired proportions."""
    n = len(reference_N)
    lost, gained = int((reference_N & ~candidate_N).sum()), int((candidate_N & ~reference_N).sum())
    low, high = drop_interval(reference_N, candidate_N, resamples, seed)
    error = math.sqrt(lost + gained - (lost - gained) ** 2 / n) / n
    return Loss((lost - gained) / n * 100, low, high, error * 100)


def effect_interval(
    lacking_SN: NDArray[np.bool_], having_SN: NDArray[np.bool_], resamples: int, seed: int
) -> tuple[float, float]:
    """95 % interval of the accuracy that a technique adds, in points, over several seeds.

    Seeds and test images are resampled, each by itself (the pigeonhole bootstrap, Owen 2007, arXiv:0712.1111), so that
    the interval tells of other seeds and of other images.

    Args:
        lacking_SN: whether the network of each seed without the technique is right about each image.
        having_SN: the same with it, in the same order.
        resamples: number of bootstrap samples.
        seed: of the draws.
    """
    seeds, images = lacking_SN.shape
    gain_SN = having_SN.astype(np.float32) - lacking_SN.astype(np.float32)
    draws = np.random.default_rng(seed)
    effects = []
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        times_RS = draws.multinomial(seeds, np.full(seeds, 1 / seeds), count).astype(np.float32)
        # How often each image is drawn, of many, is Poisson: faster to draw than the multinomial.
        times_RN = draws.poisson(1.0, (count, images)).astype(np.float32)
        totals_R = ((times_RS @ gain_SN) * times_RN).sum(1)
        effects.append(totals_R / (seeds * times_RN.sum(1)))
    low, high = np.percentile(np.concatenate(effects) * 100, [2.5, 97.5])
    return float(low), float(high)


def mcnemar(reference_N: NDArray[np.bool_], candidate_N: NDArray[np.bool_]) -> float:
    """Two-sided p-value of "both are equally accurate", from the images about which one alone is right.

    The exact test of McNemar 1947 (Psychometrika 12, 153): if both are equally accurate, each of these
    images is a fair coin. 1.0 when there are none.

    Args:
        reference_N: whether the reference is right about each image.
        candidate_N: the same of the candidate, in the same order.
    """
    lost = int((reference_N & ~candidate_N).sum())
    gained = int((candidate_N & ~reference_N).sum())
    return min(1.0, 2 * float(bdtr(min(lost, gained), lost + gained, 0.5)))


def no_better_than_chance(confusion_KK: NDArray[np.int64]) -> list[int]:
    """The classes that the model does not know, as indices: as far as the test images can tell.

    Such a class is recognised no more often than others are taken for it, or than one guess in K; and by far too
    seldom to be put down to having few images: with half of the model's accuracy so few would be right once in 20
    data sets at most, for all classes together (binomial test, Bonferroni's correction).

    Args:
        confusion_KK: images of each class (row) by what they were taken for (column).
    """
    classes, total = len(confusion_KK), confusion_KK.sum()
    images_K, right_K = confusion_KK.sum(1), confusion_KK.diagonal()
    others_K = total - images_K
    with np.errstate(
        invalid="ignore", divide="ignore"
    ):  # a class without test images, or the only one with some
        taken_K = np.nan_to_num((confusion_KK.sum(0) - right_K) / others_K)
        recall_K = right_K / images_K
    chance_K = np.maximum(taken_K, 1 / classes)
    by_luck_K = bdtr(right_K, images_K, right_K.sum() / total / 2)
    return np.flatnonzero((images_K > 0) & (recall_K <= chance_K) & (by_luck_K < 0.05 / classes)).tolist()


def calibration_error(probabilities_NK: NDArray[np.float64], labels_N: NDArray[np.int64], bins: int) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, weighted by how many
    images stand in each of `bins` equally wide bins of confidence.

    Naeini, Cooper, Hauskrecht 2015; Guo et al. 2017, arXiv:1706.04599.
    """
    confidence_N = probabilities_NK.max(1)
    right_N = probabilities_NK.argmax(1) == labels_N
    bin_N = np.minimum((confidence_N * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(bin_N, confidence_N - right_N, bins)
    return float(np.abs(gaps).sum() / len(labels_N))


def softmax(logits_NK: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities from logits, in float64."""
    shifted = logits_NK.astype(np.float64) - logits_NK.max(1, keepdims=True)
    exponents = np.exp(shifted)
    return np.asarray(exponents / exponents.sum(1, keepdims=True))


def hypervolume(points_N2: NDArray[np.float64], reference: tuple[float, float]) -> float:
    """Area that the points dominate above `reference`, both coordinates being better when greater.

    Zitzler & Thiele 1998. A point below the reference in either coordinate adds nothing.
    """
    corner = np.asarray(reference)
    above_N2 = points_N2[(points_N2 > corner).all(1)] - corner
    above_N2 = above_N2[np.lexsort((above_N2[:, 1], above_N2[:, 0]))[::-1]]  # from the right to the left
    tops_N = np.maximum.accumulate(above_N2[:, 1])
    widths_N = above_N2[:, 0] - np.append(above_N2[1:, 0], 0.0)
    return float((tops_N * widths_N).sum())
