"""Intervals and calibration, against known values and against the textbook's own procedure."""

import numpy as np
import pytest

from tasks.core.stats import calibration_error, drop_interval, softmax


def test_drop_interval_is_zero_when_both_are_right_about_the_same_images() -> None:
    right = np.array([True, False, True, True])
    assert drop_interval(right, right, 1000, 0) == (0.0, 0.0)


def test_drop_interval_equals_the_plain_bootstrap_when_resampled_image_by_image() -> None:
    draws = np.random.default_rng(1)
    reference = draws.random(2000) < 0.92
    candidate = np.where(draws.random(2000) < 0.05, ~reference, reference)
    rows = draws.integers(0, 2000, (4000, 2000))
    plain = (reference[rows].mean(1) - candidate[rows].mean(1)) * 100
    low, high = drop_interval(reference, candidate, 20_000, 0)
    assert low == pytest.approx(np.percentile(plain, 2.5), abs=0.06)
    assert high == pytest.approx(np.percentile(plain, 97.5), abs=0.06)


def test_drop_interval_is_positive_when_the_candidate_is_clearly_worse() -> None:
    reference = np.ones(1000, dtype=bool)
    candidate = np.arange(1000) >= 100
    low, high = drop_interval(reference, candidate, 5000, 0)
    assert 0 < low < 10 < high < 15


def test_drop_interval_is_the_same_when_the_seed_is() -> None:
    reference, candidate = np.arange(100) < 90, np.arange(100) < 85
    assert drop_interval(reference, candidate, 1000, 7) == drop_interval(reference, candidate, 1000, 7)


def test_calibration_error_is_zero_when_confidence_is_accuracy() -> None:
    probabilities = np.tile([0.75, 0.25], (4, 1))
    assert calibration_error(probabilities, np.array([0, 0, 0, 1]), 10) == pytest.approx(0)


def test_calibration_error_is_the_gap_when_one_bin_is_overconfident() -> None:
    probabilities = np.tile([1.0, 0.0], (10, 1))
    labels = np.array([0] * 7 + [1] * 3)
    assert calibration_error(probabilities, labels, 15) == pytest.approx(0.3)


def test_softmax_sums_to_one_when_logits_are_huge() -> None:
    probabilities = softmax(np.array([[1000.0, 0.0, -1000.0]], dtype=np.float32))
    assert np.isfinite(probabilities).all()
    assert probabilities.sum() == pytest.approx(1)
