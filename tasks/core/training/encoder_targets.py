"""Distillation from an encoder of sentences: what a classifier on its embeddings says of each text for training.

Each text is judged by a classifier that has not learned from it: of those that it has, it would know little more than the
labels (Dao et al. 2021, arXiv:2104.09732).

N: texts, E: numbers of an embedding, K: classes.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from threadpoolctl import threadpool_limits

from tasks.core.common.progress import Progress
from tasks.core.data.texts import Texts
from tasks.core.distributed.world import World
from tasks.core.models.sentence_encoder import SentenceEncoder

AT_ONCE = 512  # texts that a rank reads between two lines of progress
FOLDS = 5
LEAST = 1e-12  # probability of a class that a fold has not seen
COLDEST, HOTTEST = 0.05, 20.0  # temperatures that are looked at


def embeddings_of(encoder: SentenceEncoder, texts: Texts, ranks: World) -> NDArray[np.float32]:
    """embeddings_NE of all texts, of which each rank reads its share. No rank waits long for others: they would take it for dead."""
    starts = range(0, len(texts), AT_ONCE * ranks.size)
    found = []
    with Progress("encode", len(starts), quiet=not ranks.main) as progress:
        for start in starts:
            own_N = start + ranks.rank * AT_ONCE + np.arange(AT_ONCE)
            some_NE = encoder.encode(np.asarray(texts[own_N.clip(max=len(texts) - 1)])).to(ranks.device)
            if ranks.size > 1:
                mine_NE, some_NE = some_NE, some_NE.new_empty(ranks.size * AT_ONCE, some_NE.shape[1])
                torch.distributed.all_gather_into_tensor(some_NE, mine_NE)
            found.append(some_NE.cpu())
            progress.step()
    return torch.cat(found)[: len(texts)].numpy()


def encoder_targets(
    embeddings_NE: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    num_classes: int,
    weight: float,
    seed: int,
) -> tuple[NDArray[np.float32], float]:
    """targets_NK, rows adding up to 1: the labels, and with `weight` what a classifier on the other folds' embeddings says; and
    how often that one is right."""
    classes_N = np.unique(labels_N)
    # Of linear discriminant analysis, since it is solved at once whatever the number of texts and classes.
    classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    said_NK = np.zeros((len(labels_N), num_classes))
    with threadpool_limits(1), warnings.catch_warnings():  # sums depend on how many threads share them
        # That a class has fewer texts than there are folds.
        warnings.filterwarnings("ignore", module="sklearn")
        said_NK[:, classes_N] = cross_val_predict(
            classifier, embeddings_NE, labels_N, cv=folds, method="predict_proba"
        )
    targets_NK = weight * _calibrated(said_NK, labels_N)
    targets_NK[np.arange(len(labels_N)), labels_N] += 1 - weight
    return targets_NK.astype(np.float32), float((said_NK.argmax(1) == labels_N).mean())


def _calibrated(said_NK: NDArray[np.float64], labels_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """These probabilities at the temperature at which their cross-entropy is least (Guo et al. 2017, arXiv:1706.04599): as it is,
    the classifier is so sure of itself that a network that learns from it ends worse than alone."""
    logits_NK = np.log(said_NK.clip(LEAST))
    every_N = np.arange(len(labels_N))

    def cross_entropy(temperature: float) -> float:
        return float(-log_softmax(logits_NK / temperature, axis=1)[every_N, labels_N].mean())

    best = minimize_scalar(cross_entropy, bounds=(COLDEST, HOTTEST), method="bounded")
    calibrated_NK: NDArray[np.float64] = softmax(logits_NK / best.x, axis=1)
    return calibrated_NK
