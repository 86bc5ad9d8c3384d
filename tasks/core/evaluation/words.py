"""Which words a model of texts goes by: what its answers lose when one is left out.

Li, Monroe and Jurafsky 2016, "Understanding neural networks through representation erasure" (arXiv:1612.08220).

N: texts; L: tokens of the longest; K: classes; M: texts without one of their words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.data.tokens import split_words
from tasks.core.evaluation.stats import softmax

TRIED = 20_000  # texts without one of their words that the model reads, of all classes together
LONGEST = 64  # tokens of a text that are looked at
LEAST_TEXTS = 2  # a word must stand in, or it says something of one text alone
SHOWN = 12  # of a class

Predict = Callable[[npt.NDArray[np.object_]], npt.NDArray[np.float32]]


def words_of_classes(
    predict: Predict, texts_N: npt.NDArray[np.object_], classes: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Of each class the words that its answers owe most to, over all these texts.

    Args:
        predict: texts to logits_NK.
        texts_N: some that the model has not learned from.

    Returns:
        `word`, `texts`: how many of those looked at it stands in, and `nats`: by how much the logarithm of the answer's
        probability falls there, on the mean, without it.
    """
    answers_N = predict(texts_N).argmax(1)
    each = max(1, TRIED // len(classes))
    return {name: _of_class(predict, texts_N[answers_N == k], k, each) for k, name in enumerate(classes)}


def _of_class(predict: Predict, texts_N: npt.NDArray[np.object_], k: int, most: int) -> list[dict[str, Any]]:
    whole: list[str] = []
    without: list[tuple[int, str, str]] = []  # row in `whole`, the word, the text that is left
    for words in split_words(texts_N[:most], LONGEST) if len(texts_N) else ():
        distinct = dict.fromkeys(words)
        if len(without) + len(distinct) > most:
            break
        without += [(len(whole), word, " ".join(w for w in words if w != word)) for word in distinct]
        whole.append(" ".join(words))
    if not without:
        return []
    log_N, log_M = (
        np.log(softmax(predict(np.array(texts, object)))[:, k] + 1e-12)
        for texts in (whole, [text for *_, text in without])
    )
    lost: dict[str, list[float]] = {}
    for (row, word, _), log in zip(without, log_M, strict=True):
        lost.setdefault(word, []).append(float(log_N[row] - log))
    ranked = sorted(lost, key=lambda word: (-sum(lost[word]), word))
    return [
        {"word": word, "texts": len(lost[word]), "nats": round(float(np.mean(lost[word])), 3)}
        for word in ranked
        if len(lost[word]) >= LEAST_TEXTS and sum(lost[word]) > 0
    ][:SHOWN]
