"""The words that a model goes by."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.core.evaluation.words import LEAST_TEXTS, words_of_classes

SPEAKS = {"rain": (0, 3.0), "storm": (0, 1.0), "bread": (1, 2.0), "the": (1, -0.5)}


def predict(texts_N: NDArray[np.object_]) -> NDArray[np.float32]:
    """A model that goes by four words, each as often as it stands in a text, and by nothing else."""
    logits_NK = np.zeros((len(texts_N), 3), np.float32)
    for row, text in enumerate(texts_N):
        for word in text.lower().split():
            k, nats = SPEAKS.get(word.strip(".,"), (2, 0.0))
            logits_NK[row, k] += nats
    return logits_NK


def texts(*lines: str) -> NDArray[np.object_]:
    return np.array(lines, object)


def test_words_are_those_that_the_model_goes_by_when_it_is_known_which_they_are() -> None:
    found = words_of_classes(
        predict,
        texts("The Rain.", "rain and storm", "a storm, storm", "the bread", "bread and salt", "salt"),
        ["weather", "food", "none"],
    )
    assert [w["word"] for w in found["weather"]][:2] == ["rain", "storm"]
    assert [w["word"] for w in found["food"]] == ["bread"], "'the' speaks against it, and salt says nothing"
    assert found["none"] == [], "none of its answers owes anything to a word"
    rain = found["weather"][0]
    assert rain["texts"] == 2
    assert 0 < rain["nats"] < 3


def test_no_word_is_named_when_it_stands_in_a_single_text() -> None:
    assert LEAST_TEXTS == 2
    assert words_of_classes(predict, texts("rain", "bread"), ["weather", "food", "none"])["weather"] == []


@pytest.mark.parametrize("lines", [(), ("", " ")])
def test_no_word_is_named_when_there_are_none(lines: tuple[str, ...]) -> None:
    assert words_of_classes(predict, texts(*lines), ["a", "b", "c"]) == {"a": [], "b": [], "c": []}
