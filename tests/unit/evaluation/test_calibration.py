"""How far a confidence can be trusted."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.core.evaluation.calibration import temperature, unsure_below
from tasks.core.evaluation.stats import calibration_error, softmax


def honest(images: int, classes: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits, and labels that are drawn with the probabilities that these state."""
    rng = np.random.default_rng(seed)
    logits_NK = rng.normal(0, 3, (images, classes)).astype(np.float32)
    labels_N = (softmax(logits_NK).cumsum(1) > rng.random((images, 1))).argmax(1)
    return logits_NK, labels_N


@pytest.mark.parametrize("factor", [0.3, 1.0, 5.0])
def test_temperature_undoes_a_factor_when_logits_were_honest_before(factor: float) -> None:
    logits_NK, labels_N = honest(20_000, 5, seed=0)
    found = temperature(logits_NK * np.float32(factor), labels_N)
    assert found == pytest.approx(factor, rel=0.05)
    fresh_NK, fresh_N = honest(20_000, 5, seed=1)
    assert calibration_error(softmax(fresh_NK * np.float32(factor / found)), fresh_N, 15) < 0.015


@pytest.mark.parametrize("images", [1, 10, 30])
def test_temperature_stays_moderate_when_few_images_are_all_right(images: int) -> None:
    logits_NK = np.tile(np.array([[2.0, 0.0, 0.0]], np.float32), (images, 1))
    assert 0.25 < temperature(logits_NK, np.zeros(images, np.int64)) < 1


def test_answers_above_the_threshold_are_precise_when_images_are_new() -> None:
    kept = []
    for seed in range(40):
        logits_NK, labels_N = honest(2_000, 4, seed)
        confidence_N, right_N = softmax(logits_NK).max(1), logits_NK.argmax(1) == labels_N
        threshold = unsure_below(confidence_N, right_N, 0.9)
        assert threshold is not None
        assert 0 < threshold < 1
        fresh_NK, fresh_N = honest(50_000, 4, seed + 1_000)
        answered_N = softmax(fresh_NK).max(1) >= threshold
        kept.append(float((fresh_NK.argmax(1) == fresh_N)[answered_N].mean()))
    assert np.mean(np.array(kept) >= 0.9) >= 0.95
    assert np.mean(kept) < 0.94, "answers are not withheld for nothing"


@pytest.mark.parametrize(("images", "threshold"), [(200, None), (400, 0.0)])
def test_threshold_is_given_only_when_so_many_images_can_vouch_for_it(
    images: int, threshold: float | None
) -> None:
    confidence_N = np.random.default_rng(0).uniform(0.5, 1, images)
    assert unsure_below(confidence_N, np.ones(images, bool), 0.98) == threshold


def test_no_threshold_is_given_when_confidence_says_nothing() -> None:
    rng = np.random.default_rng(0)
    assert unsure_below(rng.uniform(0.5, 1, 5_000), rng.random(5_000) < 0.6, 0.98) is None


def test_equal_confidences_stand_or_fall_together_when_some_are_wrong() -> None:
    confidence_N = np.repeat([0.9, 0.6], 1_000)
    right_N = np.ones(2_000, bool)
    right_N[1_000:1_300] = False
    assert unsure_below(confidence_N, right_N, 0.98) == 0.9
