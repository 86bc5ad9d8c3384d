"""Intervals, McNemar's test and calibration, against known values and the textbooks' own procedures."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.core.evaluation.stats import (
    calibration_error,
    drop_interval,
    hypervolume,
    mcnemar,
    no_better_than_chance,
    softmax,
)


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


def pairs(both: int, lost: int, gained: int, neither: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether reference and candidate are right, for so many images of each kind."""
    counts = (both, lost, gained, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ((1, 1, 7, 12), 0.0703),  # Bentur et al. 2009, in Fagerland, Lydersen & Laake 2013
        ((59, 6, 16, 80), 0.0525),  # Cavo et al. 2012, in the same
        ((794, 150, 86, 570), 3.7e-5),  # Agresti 2002, approval of the prime minister
    ],
)
def test_mcnemar_gives_the_published_p_when_given_the_table(
    table: tuple[int, int, int, int], wanted: float
) -> None:
    assert mcnemar(*pairs(*table)) == pytest.approx(wanted, rel=5e-3)


@given(st.integers(0, 80), st.integers(0, 80))
def test_mcnemar_equals_the_brute_force_sum_when_counts_are_any(lost: int, gained: int) -> None:
    n = lost + gained
    tail = Fraction(sum(comb(n, k) for k in range(min(lost, gained) + 1)), 2**n)
    wanted = float(min(Fraction(1), 2 * tail))
    assert mcnemar(*pairs(3, lost, gained, 2)) == pytest.approx(wanted, rel=1e-9)
    assert mcnemar(*pairs(3, gained, lost, 2)) == pytest.approx(wanted, rel=1e-9)


def test_mcnemar_is_one_when_there_are_no_discordant_pairs() -> None:
    assert mcnemar(*pairs(90, 0, 0, 10)) == 1.0


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


@pytest.mark.parametrize("seed", range(5))
def test_hypervolume_is_the_dominated_area_when_counted_on_a_grid(seed: int) -> None:
    points = np.random.default_rng(seed).integers(-2, 12, (8, 2)).astype(float)
    cells = np.stack(np.meshgrid(np.arange(1, 12), np.arange(1, 12)), -1).reshape(-1, 2)  # upper corners
    dominated = (cells[:, None] <= points[None]).all(2).any(1).sum()
    assert hypervolume(points, (0.0, 0.0)) == dominated


def test_hypervolume_is_nothing_when_no_point_is_above_the_reference() -> None:
    assert hypervolume(np.array([[1.0, 5.0]]), (2.0, 2.0)) == 0.0
    assert hypervolume(np.empty((0, 2)), (0.0, 0.0)) == 0.0


def confusion(*rows: list[int]) -> NDArray[np.int64]:
    return np.array(rows, dtype=np.int64)


def test_class_is_known_no_better_than_by_chance_when_it_is_never_or_blindly_named() -> None:
    never = confusion([50, 0, 0], [0, 50, 0], [25, 25, 0])
    assert no_better_than_chance(never) == [2]
    blindly = confusion([2, 48], [2, 48])  # one of two is named, whatever the image
    assert no_better_than_chance(blindly) == [0]
    assert no_better_than_chance(confusion([50, 0], [0, 50])) == []


def test_class_is_not_called_unknown_when_its_images_are_too_few_to_tell() -> None:
    assert no_better_than_chance(confusion([50, 0, 0], [0, 50, 0], [1, 1, 0])) == []
    assert no_better_than_chance(confusion([50, 0, 0], [0, 50, 0], [0, 0, 0])) == []


@pytest.mark.parametrize("classes", [2, 20, 200])
def test_known_classes_are_rarely_called_unknown_when_data_are_drawn_again_and_again(classes: int) -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(100):
        table_KK = np.zeros((classes, classes), np.int64)
        for label in range(classes):
            taken = np.where(rng.random(10) < 0.7, label, rng.integers(0, classes, 10))
            np.add.at(table_KK[label], taken, 1)
        wrong += bool(no_better_than_chance(table_KK))
    assert wrong <= 10
