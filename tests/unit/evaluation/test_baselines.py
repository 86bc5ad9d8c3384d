"""What a network must beat."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.core.data.dataset import Split
from tasks.core.data.texts import Texts
from tasks.core.evaluation.baselines import SIDE, _trees, fitted, reduced


def bright_quarters(count: int, seed: int, side: int = 40, channels: int = 3) -> Split:
    """Images whose class is the quarter that is bright."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 4, count)
    images_NHWC = rng.integers(0, 150, (count, side, side, channels)).astype(np.uint8)
    for image_HWC, label in zip(images_NHWC, labels_N, strict=True):
        row, column = side // 2 * (label // 2), side // 2 * (label % 2)
        image_HWC[row : row + side // 2, column : column + side // 2] += 60
    return Split(images_NHWC, labels_N)


def accuracies(train: Split, test: Split, most: int = 1000) -> dict[str, float]:
    x_ND = reduced(test.raw_N)
    return {
        name: float((classifier.predict(x_ND) == test.labels_N).mean())
        for name, classifier in fitted(train, most, 0)
    }


def test_baselines_see_what_is_plain_and_the_majority_does_not_when_fitted() -> None:
    found = accuracies(bright_quarters(400, 0), bright_quarters(200, 1))
    majority = found.pop("majority")
    assert majority < 0.4
    assert set(found) == {"nearest centroid", "logistic regression", "random forest"}
    assert min(found.values()) > 0.95


@pytest.mark.parametrize(
    "words",
    [
        ["wind rain", "bread soup"],
        ["\u5929\u6c14\u5f88\u597d", "\u9762\u5305\u597d\u5403"],
        ["!?", "\U0001f600\U0001f389"],
    ],
    ids=["words", "no blanks", "no letters"],
)
def test_baselines_tell_texts_apart_when_words_are_whatever_they_are(words: list[str]) -> None:
    labels_N = np.arange(60) % 2
    texts = Texts.of_strings([f"{words[label]}\u3002" for label in labels_N])
    train = Split(texts, labels_N)
    found = {name: made.predict(np.asarray(texts)) for name, made in fitted(train, 1000, 0)}
    assert (found["naive Bayes"] == labels_N).all()
    assert (found["logistic regression"] == labels_N).all()


def test_characters_are_counted_when_no_word_comes_again() -> None:
    labels_N = np.arange(40) % 2
    texts = Texts.of_strings([("ab" if label else "xy") * (2 + i) for i, label in enumerate(labels_N)])
    found = {name: made.predict(np.asarray(texts)) for name, made in fitted(Split(texts, labels_N), 1000, 0)}
    assert (found["logistic regression"] == labels_N).all()


def test_no_baseline_beats_the_majority_by_much_when_images_say_nothing() -> None:
    rng = np.random.default_rng(0)
    train, test = (
        Split(rng.integers(0, 256, (400, 20, 20, 1)).astype(np.uint8), rng.integers(0, 4, 400))
        for _ in range(2)
    )
    assert max(accuracies(train, test).values()) < 0.35


@pytest.mark.parametrize("images", [12, 40])
def test_baselines_are_fitted_when_images_are_few(images: int) -> None:
    train = bright_quarters(images, 0, side=4, channels=1)
    assert len(accuracies(train, train)) == 4


def test_baselines_learn_from_no_more_images_than_asked_and_alike_each_time() -> None:
    train, test = bright_quarters(300, 0), bright_quarters(100, 1)
    few = dict(fitted(train, 20, 0))
    assert len(few["random forest"].estimators_samples_[0]) == 20
    assert accuracies(train, test, most=50) == accuracies(train, test, most=50)


def means(image_HW: NDArray[np.uint8], rows: int, columns: int) -> list[float]:
    pieces = [np.array_split(part, columns, axis=1) for part in np.array_split(image_HW, rows, axis=0)]
    return [float(piece.mean()) / 255 for row in pieces for piece in row]


def test_reduced_pixels_are_means_of_rectangles_when_the_image_is_large() -> None:
    images_NHWC = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 1)).astype(np.uint8)
    for image_HWC, found_D in zip(images_NHWC, reduced(images_NHWC), strict=True):
        assert found_D == pytest.approx(means(image_HWC[..., 0], SIDE, SIDE), abs=1e-5)


def test_pixels_are_as_they_are_when_the_image_is_small_or_not_a_multiple() -> None:
    small_NHWC = np.arange(2 * 5 * 7 * 3, dtype=np.uint8).reshape(2, 5, 7, 3)
    assert (reduced(small_NHWC) * 255).round().astype(int).tolist() == small_NHWC.reshape(2, -1).tolist()
    uneven_NHWC = np.full((1, 37, 17, 1), 51, np.uint8)
    assert reduced(uneven_NHWC) == pytest.approx(np.full((1, SIDE * SIDE), 0.2))


@pytest.mark.parametrize(
    ("images", "classes", "trees"), [(10_000, 10, 100), (3_000, 200, 100), (10_000, 1_000, 6)]
)
def test_forest_has_fewer_trees_when_classes_are_many(images: int, classes: int, trees: int) -> None:
    assert _trees(images, classes) == trees
