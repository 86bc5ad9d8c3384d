"""How far a model's confidence can be trusted: temperature scaling.

N: images, K: classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

COLDEST, HOTTEST = 0.05, 20.0  # temperatures that are looked at


def cross_entropy(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """The negative log-likelihood of each image's label, in nats, [N]."""
    log_probabilities_NK = log_softmax(logits_NK.astype(np.float64), axis=1)
    found_N: NDArray[np.float64] = -log_probabilities_NK[np.arange(len(labels_N)), labels_N]
    return found_N


def temperature(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> float:
    """What logits are to be divided by so that their cross-entropy is least (Guo et al. 2017, arXiv:1706.04599).

    It changes no prediction. Where every prediction is right it stays at COLDEST.
    """
    done = minimize_scalar(
        lambda log_t: cross_entropy(logits_NK / np.float32(np.exp(log_t)), labels_N).mean(),
        bounds=(np.log(COLDEST), np.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return float(np.exp(done.x))
