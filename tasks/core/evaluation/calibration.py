"""How far a model's confidence can be trusted: temperature scaling, and where an answer is better withheld.

N: images, K: classes. Confidence: the probability of the class that is predicted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import betaincinv, log_softmax

COLDEST, HOTTEST = 0.05, 20.0  # temperatures that are looked at
COVERAGES = np.arange(20, 0, -1) / 20  # shares of the images whose answers a threshold may keep
RISK = 0.05  # that answers are right less often than is stated


def cross_entropy(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """The negative log-likelihood of each image's label, in nats, [N]."""
    log_probabilities_NK = log_softmax(logits_NK.astype(np.float64), axis=1)
    found_N: NDArray[np.float64] = -log_probabilities_NK[np.arange(len(labels_N)), labels_N]
    return found_N


def temperature(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> float:
    """What logits are to be divided by so that their cross-entropy is least (Guo et al. 2017, arXiv:1706.04599).

    It changes no prediction. Few images say little about it: its logarithm has a standard normal prior, which weighs
    as much as one image, so that it stays moderate where every prediction is right.
    """
    done = minimize_scalar(
        lambda log_t: cross_entropy(logits_NK / np.float32(np.exp(log_t)), labels_N).sum() + 0.5 * log_t**2,
        bounds=(np.log(COLDEST), np.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return float(np.exp(done.x))


def unsure_below(
    confidence_N: NDArray[np.float64], right_N: NDArray[np.bool_], precision: float
) -> float | None:
    """The lowest confidence from which on at least `precision` of the answers are right, but for a RISK.

    Each threshold that keeps one of COVERAGES is tested by the lower end of an exact binomial interval, with
    Bonferroni's correction (as Geifman & El-Yaniv 2017, arXiv:1705.08500, do for a binary search).

    Returns:
        0 where every answer may be given; None where no threshold can be vouched for, as with too few images.
    """
    falling_N = np.sort(confidence_N)[::-1]
    for coverage in COVERAGES:
        threshold = falling_N[int(np.ceil(coverage * len(falling_N))) - 1]
        answered_N = confidence_N >= threshold
        right = int((right_N & answered_N).sum())
        wrong = int(answered_N.sum()) - right
        if right and betaincinv(right, wrong + 1, RISK / len(COVERAGES)) >= precision:
            return 0.0 if answered_N.all() else float(threshold)
    return None
