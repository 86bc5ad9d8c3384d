"""What simple classifiers make of the same examples: images reduced to a few pixels, texts as counts of their words. The
least that a network must beat.

s: side after reduction, D: numbers an image, K: classes, B: baselines.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from tasks.core.data.dataset import Split
from tasks.core.data.texts import Texts

SIDE = 16  # pixels, at most
# Tibetan, Thai, Lao, Burmese, Khmer, kana and Chinese characters, which are written without blanks between words.
_UNSPACED = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+"  # one letter is a word, too
CHARACTER = r"\S"
SOME_TEXTS = 1000  # that tell whether words come again
MOST_FEATURES, INVERSE_PENALTY = 200_000, 10.0  # of logistic regression on texts
COMPONENTS = 64  # that logistic regression sees, at most
TREES, FOREST_BYTES = 100, 1e9
_CHUNK = 1000  # images in memory at once


def features(split: Split) -> Any:
    """What the classifiers of `fitted` take."""
    return np.asarray(split.raw_N) if isinstance(split.raw_N, Texts) else reduced(split.raw_N)


def fitted(train: Split, most: int, seed: int) -> Iterator[tuple[str, Any]]:
    """Each baseline's name, and the classifier that has learned up to `most` examples of `train`."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(train))[:most])
    labels_N = np.asarray(train.labels_N)[rows]
    if isinstance(train.raw_N, Texts):
        x = np.asarray(train.raw_N[rows])
        made = _of_texts(*_unit(x[:SOME_TEXTS]))
    else:
        x = reduced(train.raw_N, rows)
        made = _of_images(x, labels_N, seed)
    with threadpool_limits(1), warnings.catch_warnings():  # sums depend on how many threads share them
        # That it has not converged, or that a pixel is the same everywhere, makes no baseline useless.
        warnings.filterwarnings("ignore", module="sklearn")
        for name, classifier in made.items():
            yield name, classifier.fit(x, labels_N)


def _unit(texts_N: NDArray[np.object_]) -> tuple[str, int]:
    """What is counted in such texts, and how many of them it must stand in: words in two, or, where no word comes again,
    characters in one."""
    try:
        CountVectorizer(min_df=2, token_pattern=WORD).fit(texts_N)
    except ValueError:
        return CHARACTER, 1
    return WORD, 2


def _of_texts(unit: str, least: int) -> dict[str, Any]:
    """Naive Bayes on counts of words, and logistic regression on TF-IDF of words and pairs of words (Wang and Manning 2012,
    "Baselines and bigrams")."""
    return {
        "majority": DummyClassifier(),
        "naive Bayes": make_pipeline(CountVectorizer(min_df=1, token_pattern=unit), MultinomialNB(alpha=0.5)),
        "logistic regression": make_pipeline(
            TfidfVectorizer(
                ngram_range=(1, 2),
                min_df=least,
                sublinear_tf=True,
                max_features=MOST_FEATURES,
                token_pattern=unit,
            ),
            LogisticRegression(C=INVERSE_PENALTY, max_iter=200),
        ),
    }


def _of_images(x_ND: NDArray[np.float32], labels_N: NDArray[np.int64], seed: int) -> dict[str, Any]:
    return {
        "majority": DummyClassifier(),
        "nearest centroid": NearestCentroid(),
        "logistic regression": make_pipeline(
            PCA(min(COMPONENTS, *x_ND.shape), svd_solver="covariance_eigh"),
            StandardScaler(),
            LogisticRegression(max_iter=300),
        ),
        "random forest": RandomForestClassifier(
            _trees(len(x_ND), len(np.unique(labels_N))), n_jobs=-1, random_state=seed
        ),
    }


def _trees(images: int, classes: int) -> int:
    """TREES, or as many as fit into FOREST_BYTES: each node of each tree holds a number a class."""
    return min(TREES, max(1, int(FOREST_BYTES / (2 * images * classes * 8))))


def reduced(images_NHWC: NDArray[np.uint8], rows: NDArray[np.intp] | None = None) -> NDArray[np.float32]:
    """The means over at most SIDE x SIDE rectangles of each image, in 0..1: [N, D], D = s * s * channels."""
    count = len(images_NHWC) if rows is None else len(rows)
    parts = []
    for start in range(0, count, _CHUNK):
        chosen = slice(start, start + _CHUNK) if rows is None else rows[start : start + _CHUNK]
        x_NHWC = (images_NHWC[chosen] / 255).astype(np.float32)
        parts.append(_means(_means(x_NHWC, 1), 2).reshape(len(x_NHWC), -1))
    return np.concatenate(parts)


def _means(x_NHWC: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Over at most SIDE pieces of an axis, as equal as they can be."""
    length = x_NHWC.shape[axis]
    if length <= SIDE:
        return x_NHWC
    starts = np.arange(SIDE) * length // SIDE
    lengths = np.diff(starts, append=length).astype(np.float32)
    shape = [1, 1, 1, 1]
    shape[axis] = SIDE
    return np.asarray(np.add.reduceat(x_NHWC, starts, axis=axis) / lengths.reshape(shape))
