"""Whether to ship: a model that knows nothing is not praised for what was saved on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.core.evaluation.bar import Bar
from tasks.core.evaluation.candidates import DENSE, Candidate
from tasks.core.reporting.verdict import Verdict, judge
from tests.unit.test_select import candidate

BASELINES = {
    "features": "reduced pixels",
    "best": "random forest",
    "accuracy": {"majority": {"val": 0.1, "test": 0.1}, "random forest": {"val": 0.71, "test": 0.7}},
}


def known(name: str, margin: float = 20.0, half: float = 1.0) -> Candidate:
    """A candidate with so many points more than the best baseline."""
    return replace(
        candidate(name),
        accuracy=0.7 + margin / 100,
        margin_points=margin,
        margin_low=margin - half,
        margin_high=margin + half,
    )


def verdict(selected: Candidate, dense: Candidate | None = None, **changed: Any) -> Verdict:
    asked: dict[str, Any] = {
        "passed": True,
        "reason": "It is the fastest.",
        "bar": Bar(1.0, 5000),
        "unknown": [],
        "baselines": BASELINES,
        "test_examples": 1000,
        "train_accuracy": 0.9,
        "val_accuracy": 0.88,
        "quick": False,
    }
    return judge(selected, dense or known(DENSE), **{**asked, **changed})


def test_model_ships_when_it_beats_the_baseline() -> None:
    found = verdict(known("press-1"))
    assert (found.ships, found.knows, found.advice) == (True, True, [])
    assert "20.00 points more than by a random forest" in found.sentence


def test_verdict_says_so_when_the_run_was_quick() -> None:
    assert verdict(known("press-1"), quick=True).sentence.endswith(
        "searches and trains some sixteen times longer."
    )
    assert (
        verdict(known("press-1"), known(DENSE, -1.0), quick=True).advice[0].startswith("This was a quick run")
    )


@pytest.mark.parametrize("margin", [-30.0, 0.0])
def test_nothing_ships_when_the_dense_model_is_no_better_than_a_baseline(margin: float) -> None:
    found = verdict(known("press-1"), known(DENSE, margin))
    assert not found.ships and not found.knows
    assert found.sentence.startswith("Do not ship this: the dense model knows no more than a random forest")
    assert found.advice


def test_nothing_ships_when_the_test_images_cannot_tell_the_dense_model_from_a_baseline() -> None:
    found = verdict(known("press-1"), known(DENSE, 3.0, 5.0), test_examples=30)
    assert not found.knows
    assert "30 test examples cannot tell the dense model" in found.sentence
    assert "\u22122.00 to 8.00" in found.sentence


def test_compressed_model_does_not_ship_when_it_fell_to_the_baseline() -> None:
    found = verdict(known("press-1", -1.0))
    assert not found.knows
    assert "press-1 knows no more than" in found.sentence


def test_classes_are_named_when_they_are_not_recognised() -> None:
    found = verdict(known("press-1"), unknown=list("abcdefgh"))
    assert not found.ships
    assert "press-1 recognises a, b, c, d, e and 3 more classes no better than chance" in found.sentence


def test_dense_model_is_kept_when_none_is_within_the_bar() -> None:
    found = verdict(known(DENSE), passed=False, reason="None is within the bar.")
    assert (found.ships, found.knows) == (False, True)
    assert found.sentence == "Keep the dense model. None is within the bar."


@pytest.mark.parametrize(
    ("train", "val", "words"),
    [
        (0.99, 0.35, "memorises: 99"),
        (0.4, 0.35, "has not learned its training examples (40"),
        (1.0, 1.0, "has learned its examples as far as they go, and so has"),
    ],
)
def test_advice_is_for_what_went_wrong_when_the_model_knows_nothing(
    train: float, val: float, words: str
) -> None:
    advice = verdict(known("press-1"), known(DENSE, -1.0), train_accuracy=train, val_accuracy=val).advice
    assert len(advice) == 1 and words in advice[0].replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("val_accuracy", "forest", "doubtful"),
    [
        (0.3, 1 / 3, True),
        (float(np.float32(1 / 3)), 1 / 3, True),
        (0.4, 0.38, True),  # of 120 images guesses may be right about 42 %
        (0.45, 0.38, False),
        (0.4, 0.45, False),
    ],
)
def test_advice_doubts_the_labels_when_nothing_beats_the_majority_by_more_than_chance(
    val_accuracy: float, forest: float, doubtful: bool
) -> None:
    guesses = {"val": 1 / 3, "test": 1 / 3}
    best = {"val": forest, "test": forest}
    blind = {
        "features": "reduced pixels",
        "best": "random forest",
        "accuracy": {"majority": guesses, "random forest": best},
    }
    found = verdict(
        known("press-1"), known(DENSE, -1.0), baselines=blind, val_accuracy=val_accuracy, bar=Bar(0.75, 120)
    )
    assert any("do the labels follow from what they are of" in advice for advice in found.advice) == doubtful


def test_model_does_not_ship_when_the_test_images_contradict_the_validation_images() -> None:
    lossy = replace(known("press-1"), drop_points=3.0, drop_low=1.1, drop_high=5.0)
    found = verdict(lossy)
    assert (found.ships, found.knows) == (False, True)
    assert "loses 3.00 points on the test examples (95 % interval 1.10 to 5.00)" in found.sentence
    assert verdict(replace(lossy, drop_low=0.9)).ships


def test_verdict_says_what_few_validation_images_cannot_prove_when_it_ships() -> None:
    sentence = verdict(known("press-1"), bar=Bar(0.75, 27)).sentence
    assert "27 validation examples cannot tell a loss below 18.5 points from none" in sentence
    assert "the bar of 0.75 needs 667" in sentence
